//! All lines between the hosts, and the frames that are on their way. `[pure]`
//!
//! Hosts are told apart by the hardware addresses they were given. Reading and writing frames is `switch.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use super::line::{Conditions, Line, Tally};
use crate::netns::names::host_of;

/// Frames on their way at one time: 12 MiB of full ones. A delay of 100 ms holds 1,200 frames at 12,000 a second.
const WAITING_MAX: usize = 8192;

/// Everything that lies between hosts.
#[derive(Debug)]
pub(crate) struct Table {
    hosts: usize,
    /// The line from `a` to `b` is at `a * hosts + b`.
    lines: Vec<Line>,
    /// By when they are due, then by arrival.
    waiting: BTreeMap<(Instant, u64), Parcel>,
    next_parcel: u64,
    strangers: u64,
}

/// One copy of a frame.
#[derive(Debug)]
struct Parcel {
    from: usize,
    to: usize,
    number: u64,
    frame: Arc<[u8]>,
}

/// What the lines have done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tallies {
    /// Lines that carried anything.
    pub lines: Vec<LineTally>,
    /// Frames with a hardware address that no host has.
    pub strangers: u64,
}

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineTally {
    /// Where frames come from.
    pub from: usize,
    /// Where they go.
    pub to: usize,
    /// What became of them.
    pub tally: Tally,
}

impl Tallies {
    /// All lines taken together.
    pub fn sum(&self) -> Tally {
        self.lines.iter().fold(Tally::default(), |sum, LineTally { tally, .. }| Tally {
            offered: sum.offered + tally.offered,
            lost: sum.lost + tally.lost,
            duplicated: sum.duplicated + tally.duplicated,
            held_back: sum.held_back + tally.held_back,
            delivered: sum.delivered + tally.delivered,
            overtaken: sum.overtaken + tally.overtaken,
            overflowed: sum.overflowed + tally.overflowed,
        })
    }
}

impl Table {
    /// Perfect lines; what they will do once they are not comes from the seed, for each line on its own.
    pub(crate) fn new(hosts: usize, seed: u64) -> Self {
        let lines = (0..hosts * hosts).map(|line| Line::new(seed ^ (line as u64) << 32)).collect();
        Self { hosts, lines, waiting: BTreeMap::new(), next_parcel: 0, strangers: 0 }
    }

    /// From the next frame on a line is like this. What is on its way arrives as it would have.
    pub(crate) fn set(&mut self, from: usize, to: usize, conditions: Conditions) -> Result<(), String> {
        conditions.check()?;
        if from >= self.hosts || to >= self.hosts || from == to {
            return Err(format!("no line from host {from} to host {to} of {}", self.hosts));
        }
        self.lines[from * self.hosts + to].conditions = conditions;
        Ok(())
    }

    /// A host has sent a frame. One to everybody goes over each line on its own.
    pub(crate) fn on_frame(&mut self, from: usize, frame: &[u8], now: Instant) {
        let Some(&to) = frame.first_chunk::<6>() else {
            self.strangers += 1;
            return;
        };
        // The lowest bit of the first byte: to a group, and every group is everybody.
        let is_group = to[0] & 1 == 1;
        let targets = match host_of(to).filter(|to| *to < self.hosts && *to != from) {
            Some(to) => to..to + 1,
            None if is_group => 0..self.hosts,
            None => {
                self.strangers += 1;
                return;
            }
        };
        let frame: Arc<[u8]> = frame.into();
        for to in targets.filter(|to| *to != from) {
            self.send(from, to, &frame, now);
        }
    }

    fn send(&mut self, from: usize, to: usize, frame: &Arc<[u8]>, now: Instant) {
        let line = &mut self.lines[from * self.hosts + to];
        let fate = line.carry(now);
        for _ in 0..fate.copies {
            if self.waiting.len() >= WAITING_MAX {
                line.tally.overflowed += 1;
                continue;
            }
            let parcel = Parcel { from, to, number: fate.number, frame: frame.clone() };
            self.waiting.insert((fate.due, self.next_parcel), parcel);
            self.next_parcel += 1;
        }
    }

    /// When the next frame goes out.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next frame that is due: the line it is on, and its bytes. Say afterwards whether it went out.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let Parcel { from, to, number, frame } = entry.remove();
        Some(Due { line: from * self.hosts + to, to, number, frame })
    }

    /// What became of a frame that was due.
    pub(crate) fn on_sent(&mut self, due: &Due, is_taken: bool) {
        let line = &mut self.lines[due.line];
        match is_taken {
            true => line.delivered(due.number),
            false => line.tally.overflowed += 1,
        }
    }

    /// What the lines have done so far.
    pub(crate) fn tallies(&self) -> Tallies {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| line.tally.offered > 0);
        let lines = lines.map(|(index, line)| LineTally {
            from: index / self.hosts,
            to: index % self.hosts,
            tally: line.tally,
        });
        Tallies { lines: lines.collect(), strangers: self.strangers }
    }
}

/// A frame that is due.
#[derive(Debug)]
pub(crate) struct Due {
    line: usize,
    /// The host it goes to.
    pub to: usize,
    number: u64,
    /// Its bytes.
    pub frame: Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::netns::names::hardware;

    const EVERYBODY: [u8; 6] = [0xff; 6];

    fn frame(to: [u8; 6], body: u8) -> Vec<u8> {
        [&to[..], &[0; 8], &[body]].concat()
    }

    /// Takes out all that is due, as the loop does.
    fn drain(table: &mut Table, now: Instant, mut is_taken: impl FnMut() -> bool) -> Vec<(usize, u8)> {
        let mut out = Vec::new();
        while let Some(due) = table.pop_due(now) {
            let taken = is_taken();
            table.on_sent(&due, taken);
            out.push((due.to, due.frame[14]));
        }
        out
    }

    #[test]
    fn frames_go_where_they_are_addressed_and_those_of_strangers_nowhere() {
        let now = Instant::now();
        let mut table = Table::new(3, 7);
        table.on_frame(0, &frame(hardware(2), 1), now);
        table.on_frame(1, &frame(EVERYBODY, 2), now);
        table.on_frame(1, &frame([0x33, 0x33, 0, 0, 0, 1], 3), now);
        for stranger in [frame(hardware(3), 4), frame([2; 6], 5), frame(hardware(0), 6), vec![0; 5]] {
            table.on_frame(0, &stranger, now);
        }
        assert_eq!(drain(&mut table, now, || true), [(2, 1), (0, 2), (2, 2), (0, 3), (2, 3)]);
        let tallies = table.tallies();
        assert_eq!((tallies.strangers, tallies.lines.len(), tallies.sum().delivered), (4, 3, 5));
    }

    #[test]
    fn a_line_has_two_directions() {
        let now = Instant::now();
        let mut table = Table::new(2, 7);
        table.set(0, 1, Conditions { delay_ms: 20, ..Default::default() }).unwrap();
        table.on_frame(0, &frame(hardware(1), 1), now);
        table.on_frame(1, &frame(hardware(0), 2), now);
        assert_eq!(drain(&mut table, now, || true), [(0, 2)]);
        assert_eq!(table.next_due(), Some(now + Duration::from_millis(20)));
        assert_eq!(drain(&mut table, now + Duration::from_millis(20), || true), [(1, 1)]);
        assert_eq!(table.next_due(), None);
        for (from, to) in [(0, 0), (0, 2), (2, 0)] {
            assert!(table.set(from, to, Conditions::default()).is_err());
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut table = Table::new(2, 7);
        table.set(0, 1, Conditions { delay_ms: 1000, ..Default::default() }).unwrap();
        for _ in 0..WAITING_MAX + 5 {
            table.on_frame(0, &frame(hardware(1), 1), now);
        }
        assert_eq!((table.waiting.len(), table.tallies().sum().overflowed), (WAITING_MAX, 5));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_made_up_and_nothing_vanishes(
            seed: u64,
            sends in prop::collection::vec((0..4_usize, 0..5_usize, 0..30_u64), 1..100),
            loss in 0.0..=1.0,
            duplicate in 0.0..=1.0,
            reorder in 0.0..=1.0,
            refusing in 0..4_u32,
        ) {
            let mut now = Instant::now();
            let mut table = Table::new(4, seed);
            for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to) {
                table.set(from, to, Conditions { delay_ms: 40, jitter_ms: 40, loss, duplicate, reorder }).unwrap();
            }
            let mut out = 0_u64;
            let mut turn = 0_u32;
            for (from, to, gap) in sends {
                now += Duration::from_millis(gap);
                table.on_frame(from, &frame(if to == 4 { EVERYBODY } else { hardware(to) }, 0), now);
                out += drain(&mut table, now, || { turn += 1; refusing == 0 || !turn.is_multiple_of(refusing + 1) }).len() as u64;
                prop_assert!(table.next_due().is_none_or(|due| due > now));
            }
            out += drain(&mut table, now + Duration::from_secs(1), || true).len() as u64;
            let sum = table.tallies().sum();
            prop_assert_eq!(table.next_due(), None);
            prop_assert_eq!(sum.delivered + sum.overflowed, out);
            prop_assert_eq!(sum.offered + sum.duplicated - sum.lost, out);
        }
    }
}
