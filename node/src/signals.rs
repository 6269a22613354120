//! Signals as events. What they mean is decided in `up.rs`.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// A signal that asks something of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caught {
    End(EndSignal),
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Dump,
}

/// A signal that asks this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndSignal {
    Interrupt,
    Terminate,
}

impl EndSignal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            EndSignal::Interrupt => "SIGINT",
            EndSignal::Terminate => "SIGTERM",
        }
    }

    /// The code of a process that did not get to drain.
    pub(crate) fn exit(self) -> Exit {
        match self {
            EndSignal::Interrupt => Exit::Interrupted,
            EndSignal::Terminate => Exit::Terminated,
        }
    }
}

/// All of them, caught from creation on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    /// Catches the signals. Must be called within the runtime.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| Failure::io("catch signals", &error));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
            user1: catch(SignalKind::user_defined1())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Caught {
        // A signal stream ends only with its runtime; then nobody polls here either.
        tokio::select! {
            biased; // Whoever wants the node to end does not care for its settings.
            _ = self.interrupt.recv() => Caught::End(EndSignal::Interrupt),
            _ = self.terminate.recv() => Caught::End(EndSignal::Terminate),
            _ = self.hangup.recv() => Caught::Reload,
            _ = self.user1.recv() => Caught::Dump,
        }
    }

    /// The next signal to end. Where there is nothing to reload and nothing to dump, the others are dropped. Cancel-safe.
    pub(crate) async fn next_end(&mut self) -> EndSignal {
        loop {
            if let Caught::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}
