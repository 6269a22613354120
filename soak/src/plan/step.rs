//! One thing to do in a storm, as a plan keeps it. `[pure]`

use perennial_soak::{attack::Kind, place::collector::Mood};
use serde::{Deserialize, Serialize};

use super::OBSERVER;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Nothing happens for a while.
    Rest { for_ms: u64 },
    /// `node` leaves the topic, stays away, and rejoins through `via`; its process lives on.
    Rotate { node: usize, via: usize, away_ms: u64 },
    /// `node` is killed, stays away, and is started again, joining through `via` and the node after it.
    Kill { node: usize, via: usize, away_ms: u64, identity: Identity },
    /// `node` is told to stop, stays away, and is started again as who it was.
    Quit { node: usize, via: usize, away_ms: u64 },
    /// `node` is stopped by SIGSTOP and goes on.
    Pause { node: usize, for_ms: u64 },
    /// All of `nodes` are killed at once. When the others are one mesh again, the dead are started, with new identities.
    Mass { nodes: Vec<usize> },
    /// Both nodes leave the topic and come back through each other at one instant, so that each dials the other. `via` is
    /// the way back to everybody else.
    Meet { nodes: [usize; 2], via: usize },
    /// `node` is killed and back at once, with the same key, while its neighbours still hold its connections.
    ComeBack { node: usize, via: usize },
    /// The observer dials a socket that never answers, under so many ids, and gives up.
    GiveUp { dials: usize },
    /// Strangers come to the observer. Who stays leaves when the node has dealt with everybody.
    Strangers { kind: Kind, count: usize },
    /// Strangers fill the observer to one below a cap, to the cap, and knock once more; then one leaves.
    Fill { cap: Cap },
    /// Nothing happens until nobody remembers the strangers, or until every timer of a node has run out. Not an event.
    Quiet { for_ms: u64 },
    /// Every store that only use fills is filled, so that what grows later has no excuse. Not an event.
    Saturate { messages: usize, strangers: usize },
    /// `subscriber`'s application stops reading and `halted` stops altogether, while the observer publishes a burst.
    Slow { subscriber: usize, halted: usize, messages: usize },
    /// One more node is started under a resource limit, as `prlimit` names it.
    Constrain { resource: Resource, value: u64 },
    /// The network falls into parts, or the first part no longer reaches the second, and is healed.
    Part { groups: Vec<Vec<usize>>, one_way: bool, for_ms: u64 },
    /// Every line delays, loses, doubles and reorders.
    Weather { weather: Weather, for_ms: u64 },
    /// A node's host gets another address.
    Move { node: usize },
    /// The disk of the last node is full for a while.
    FillDisk { node: usize, for_ms: u64 },
    /// The wall clock of the last node is off for a while.
    Clock { node: usize, offset_s: i64, for_ms: u64 },
    /// One loop of `node` panics, fails or hangs.
    Break { node: usize, part: String, kind: String },
    /// The collector of every node's telemetry fails in one way for a while, and is well again.
    Collector { mood: Mood, for_ms: u64 },
    /// `nodes`, through whom the others joined, are killed; the others are told to join through them again. After a while they
    /// are back where they were.
    LoseBootstrap { nodes: Vec<usize>, for_ms: u64 },
    /// `from` publishes a message that every live node must receive.
    Probe { from: usize },
}

/// What lines do to frames: in milliseconds and percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weather {
    pub delay_ms: u32,
    pub jitter_ms: u32,
    pub loss_percent: u32,
    pub duplicate_percent: u32,
    pub reorder_percent: u32,
}

/// What strangers fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cap {
    /// What unknown remotes may hold altogether.
    Node,
    /// What the observer's second listener may hold.
    Listener,
}

/// Who comes back after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Identity {
    /// A new key, so a stranger.
    Fresh,
    /// The same key file.
    Same,
    /// The same key file and the same UDP port.
    SamePort,
}

/// What a process may have too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Resource {
    /// Descriptors.
    Descriptors,
    /// Address space, in bytes.
    AddressSpace,
}

impl Weather {
    /// Nothing is lost and nothing takes time.
    pub(crate) const FAIR: Self =
        Self { delay_ms: 0, jitter_ms: 0, loss_percent: 0, duplicate_percent: 0, reorder_percent: 0 };
}

impl Step {
    /// Whether it is an event, counted and judged per piece.
    pub(crate) fn is_event(&self) -> bool {
        !matches!(self, Step::Probe { .. } | Step::Quiet { .. } | Step::Saturate { .. })
    }

    /// Whether the barrier after it is a deep one: nothing young is left for a leak to hide behind.
    pub(crate) fn is_deep(&self) -> bool {
        matches!(self, Step::Quiet { for_ms } if *for_ms >= super::DEEP_MS)
    }

    /// How many events it counts for: every stranger may leave as much behind as a node that was killed.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Step::Strangers { count, .. } => *count as u64,
            Step::GiveUp { dials } => *dials as u64,
            // Two rotations.
            Step::Meet { .. } => 2,
            Step::Fill { cap: Cap::Listener } => 6,
            // What the mesh leaves of its slots.
            Step::Fill { cap: Cap::Node } => 20,
            // Spans and figures are sent by exporters of their own.
            Step::Collector { .. } => 2,
            _ => 1,
        }
    }

    /// Whether neighbouring steps of this kind happen at the same time.
    pub(super) fn side_by_side(&self) -> bool {
        matches!(self, Step::Rotate { .. } | Step::Pause { .. })
    }

    /// Nodes whose process does not outlive the step.
    pub(crate) fn killed(&self) -> &[usize] {
        match self {
            Step::Kill { node, .. } | Step::Quit { node, .. } | Step::ComeBack { node, .. } => {
                std::slice::from_ref(node)
            }
            Step::Mass { nodes } | Step::LoseBootstrap { nodes, .. } => nodes,
            Step::Rest { .. }
            | Step::Rotate { .. }
            | Step::Pause { .. }
            | Step::Meet { .. }
            | Step::GiveUp { .. }
            | Step::Strangers { .. }
            | Step::Fill { .. }
            | Step::Quiet { .. }
            | Step::Saturate { .. }
            | Step::Slow { .. }
            | Step::Constrain { .. }
            | Step::Part { .. }
            | Step::Weather { .. }
            | Step::Move { .. }
            | Step::FillDisk { .. }
            | Step::Clock { .. }
            | Step::Break { .. }
            | Step::Collector { .. }
            | Step::Probe { .. } => &[],
        }
    }

    /// Those of `nodes` nodes that it does something to: of what is said meanwhile, they need not hear.
    pub(crate) fn touches(&self, nodes: usize) -> Vec<usize> {
        match self {
            Step::Rotate { node, .. }
            | Step::Kill { node, .. }
            | Step::Quit { node, .. }
            | Step::Pause { node, .. }
            | Step::ComeBack { node, .. }
            | Step::Move { node }
            | Step::Clock { node, .. } => vec![*node],
            Step::Meet { nodes, .. } => nodes.to_vec(),
            Step::LoseBootstrap { nodes, .. } => nodes.clone(),
            // Another one leaves and rejoins meanwhile, so that there is something to keep; a broken link has two ends.
            Step::FillDisk { node, .. } => vec![*node, 1, 2],
            Step::Break { node, .. } => vec![*node, OBSERVER],
            Step::Slow { subscriber, halted, .. } => vec![*subscriber, *halted, OBSERVER],
            Step::GiveUp { .. } | Step::Strangers { .. } | Step::Fill { .. } => vec![OBSERVER],
            // What they hit is the mesh itself, or the lines between any two.
            Step::Saturate { .. } | Step::Mass { .. } | Step::Part { .. } | Step::Weather { .. } => {
                (0..nodes).collect()
            }
            // What becomes of telemetry is nobody's business but its own.
            Step::Rest { .. }
            | Step::Quiet { .. }
            | Step::Constrain { .. }
            | Step::Collector { .. }
            | Step::Probe { .. } => Vec::new(),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Rest { for_ms } => write!(f, "rest {} s", for_ms / 1000),
            Step::Rotate { node, .. } => write!(f, "rotate n{node}"),
            Step::Kill { node, .. } => write!(f, "kill n{node}"),
            Step::Quit { node, .. } => write!(f, "stop n{node}"),
            Step::Pause { node, for_ms } => write!(f, "pause n{node} for {} s", for_ms / 1000),
            Step::Mass { nodes } => write!(f, "kill {} nodes at once", nodes.len()),
            Step::Meet { nodes: [one, other], .. } => write!(f, "n{one} and n{other} dial each other"),
            Step::ComeBack { node, .. } => write!(f, "n{node} comes back"),
            Step::GiveUp { dials } => write!(f, "give up {dials} dials"),
            Step::Strangers { kind, count } => write!(f, "{count} strangers: {}", kind.name()),
            Step::Fill { cap: Cap::Node } => f.write_str("fill the node"),
            Step::Fill { cap: Cap::Listener } => f.write_str("fill a listener"),
            Step::Quiet { for_ms } => write!(f, "quiet for {} s", for_ms / 1000),
            Step::Saturate { messages, strangers } => {
                write!(f, "{messages} messages and {strangers} strangers a node fill tables")
            }
            Step::Slow { subscriber, halted, .. } => write!(f, "n{subscriber} stops reading, n{halted} stops"),
            Step::Constrain { resource, value } => write!(f, "start with {value} {resource:?}"),
            Step::Part { groups, one_way: false, .. } => write!(f, "{} parts", groups.len()),
            Step::Part { .. } => write!(f, "one way cut"),
            Step::Weather { weather, .. } => write!(
                f,
                "{}±{} ms, {} % lost, {} % doubled, {} % out of order",
                weather.delay_ms,
                weather.jitter_ms,
                weather.loss_percent,
                weather.duplicate_percent,
                weather.reorder_percent
            ),
            Step::Move { node } => write!(f, "n{node} moves"),
            Step::FillDisk { node, .. } => write!(f, "the disk of n{node} is full"),
            Step::Clock { node, offset_s, .. } => write!(f, "the clock of n{node} is {offset_s:+} s off"),
            Step::Break { node, part, kind } => write!(f, "{kind} in a {part} of n{node}"),
            Step::Collector { mood, for_ms } => write!(f, "the collector: {mood:?} for {} s", for_ms / 1000),
            Step::LoseBootstrap { nodes, .. } => write!(f, "{} bootstrap nodes are gone", nodes.len()),
            Step::Probe { from } => write!(f, "probe from n{from}"),
        }
    }
}
