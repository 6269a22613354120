//! How the program ends: one enum of exit codes, and the failure that carries one up to `main`.
//!
//! The numbers follow `sysexits.h`, so that scripts and service managers can tell a typo from a busy node.

use std::{fmt, process::ExitCode};

/// Every exit code of `perennial`. `cli.rs` documents the same list for `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; for `up`: drained as asked.
    Ok = 0,
    /// A check failed: orphans, a lost message, a node that gave up or could not drain cleanly.
    Failed = 1,
    /// The command line makes no sense. The same number clap uses.
    Usage = 2,
    /// No node answers on the control socket.
    NoNode = 69,
    /// Reading or writing failed, standard output included.
    Io = 74,
    /// Not at this moment: another node holds the socket, or the node is full or draining.
    Unavailable = 75,
    /// A key file, socket or directory that others could use.
    Permission = 77,
    /// Settings that contradict each other, or a key that is not one.
    Config = 78,
    /// A second SIGINT.
    Interrupted = 130,
    /// A second SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The code of `number`, as a control response carries it. An unknown number is a failed check.
    pub(crate) fn from_number(number: u8) -> Exit {
        [
            Exit::Ok,
            Exit::Usage,
            Exit::NoNode,
            Exit::Io,
            Exit::Unavailable,
            Exit::Permission,
            Exit::Config,
            Exit::Interrupted,
            Exit::Terminated,
        ]
        .into_iter()
        .find(|exit| *exit as u8 == number)
        .unwrap_or(Exit::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb could not do what it was asked, with the code to end on. The sentence goes to stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) sentence: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }

    /// An I/O error, with what was being done. A refused permission keeps its own code.
    pub(crate) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Io,
        };
        Self::new(exit, format!("cannot {doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_control_socket() {
        for exit in [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unavailable, Exit::Config, Exit::Terminated] {
            assert_eq!(Exit::from_number(exit as u8), exit);
        }
        assert_eq!(Exit::from_number(99), Exit::Failed);
    }
}
