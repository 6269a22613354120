//! Signals as events. What they mean is decided in `up.rs`.

use std::fs::File;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// A signal that asks something of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caught {
    End(EndSignal),
    /// SIGHUP that somebody sent.
    Reload,
    /// SIGUSR1.
    Dump,
}

/// A signal that asks this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndSignal {
    Interrupt,
    Terminate,
    /// SIGHUP, because the terminal was closed.
    Hangup,
}

impl EndSignal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            EndSignal::Interrupt => "SIGINT",
            EndSignal::Terminate => "SIGTERM",
            EndSignal::Hangup => "SIGHUP from a terminal that was closed",
        }
    }

    /// The code of a process that did not get to drain.
    pub(crate) fn exit(self) -> Exit {
        match self {
            EndSignal::Interrupt => Exit::Interrupted,
            EndSignal::Terminate | EndSignal::Hangup => Exit::Terminated,
        }
    }
}

/// The signals that ask a process to end, caught from creation on.
#[derive(Debug)]
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Catches them. Must be called within the runtime.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> EndSignal {
        // A signal stream ends only with its runtime; then nobody polls here either.
        tokio::select! {
            _ = self.interrupt.recv() => EndSignal::Interrupt,
            _ = self.terminate.recv() => EndSignal::Terminate,
        }
    }
}

/// All signals of a node, caught from creation on.
#[derive(Debug)]
pub(crate) struct Signals {
    ends: EndSignals,
    hangup: Signal,
    user1: Signal,
    had_terminal: bool,
}

impl Signals {
    /// Catches them. Must be called within the runtime.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Ok(Self {
            ends: EndSignals::catch()?,
            hangup: catch(SignalKind::hangup())?,
            user1: catch(SignalKind::user_defined1())?,
            had_terminal: has_terminal(),
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Caught {
        tokio::select! {
            biased; // Whoever wants the node to end does not care for its settings.
            signal = self.ends.next() => Caught::End(signal),
            _ = self.hangup.recv() => match self.had_terminal && !has_terminal() {
                true => Caught::End(EndSignal::Hangup),
                false => Caught::Reload,
            },
            _ = self.user1.recv() => Caught::Dump,
        }
    }

    /// The next one that asks the node to end; where there is nothing to reload and nothing to dump. Cancel-safe.
    pub(crate) async fn next_end(&mut self) -> EndSignal {
        self.ends.next().await
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::io("catch signals", &error))
}

/// Whether this process has a terminal that could be closed.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
