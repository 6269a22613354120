//! What the tasks of one `perennial up` share: the mesh, the task table, the memberships, the settings, the
//! probes, and the way to end it all.

use std::fmt;

use perennial::Mesh;
use tokio::sync::mpsc;

use crate::{
    control::Gauges, health::Vigil, memberships::Memberships, probe::SelfProbe, reload::Running, tasks::Tasks,
    telemetry::Figures,
};

/// Reasons to end that may wait while the node is already ending. The first one counts.
const ENDINGS_MAX: usize = 8;

/// One running node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) tasks: Tasks,
    pub(crate) memberships: Memberships,
    pub(crate) vigil: Vigil,
    /// Who asks this node.
    pub(crate) clients: Gauges,
    pub(crate) running: Running,
    pub(crate) probe: SelfProbe,
    pub(crate) telemetry: Figures,
    endings: Endings,
}

/// Why a node ends by its own means. Signals and the mesh giving up are seen by `up.rs` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `perennial stop`, or a request to drain.
    Asked,
    /// The input was closed and the node was told to end with it.
    InputClosed,
    /// Standard output cannot be written.
    OutputGone(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Asked => f.write_str("asked to stop"),
            Ending::InputClosed => f.write_str("standard input is closed"),
            Ending::OutputGone(error) => write!(f, "standard output is gone: {error}"),
        }
    }
}

/// The sending side of [`Ending`]s. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Endings(mpsc::Sender<Ending>);

impl Endings {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Ending>) {
        let (endings, received) = mpsc::channel(ENDINGS_MAX);
        (Self(endings), received)
    }

    pub(crate) fn end(&self, ending: Ending) {
        // Full means that the node is ending for eight reasons already.
        let _ = self.0.try_send(ending);
    }
}

impl Node {
    pub(crate) fn new(
        mesh: Mesh,
        tasks: Tasks,
        memberships: Memberships,
        clients: Gauges,
        running: Running,
        telemetry: Figures,
        endings: Endings,
    ) -> Self {
        let (vigil, probe) = (Vigil::new(), SelfProbe::default());
        Self { mesh, tasks, memberships, vigil, clients, running, probe, telemetry, endings }
    }

    /// Ends the node, and lets it take no work from here on.
    pub(crate) fn end(&self, ending: Ending) {
        self.vigil.on_drain();
        self.endings.end(ending);
    }
}
