//! Other programs, run to their end: `ip`, `nft`, `mount`. What is missing is said with the package that has it.
//!
//! What they are told is not decided here.

use std::{io::Write, path::PathBuf, process::Stdio, time::Duration};

use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command};

/// Each of these programs is done in milliseconds. Guess; a machine that needs longer cannot carry a soak.
const TOOL_TIMEOUT: Duration = Duration::from_secs(20);

/// Why something could not be done to a place.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Namespaces and mounts take CAP_SYS_ADMIN and CAP_NET_ADMIN.
    #[error("{what} need root; run it as root")]
    NotRoot {
        /// What was wanted, in the plural.
        what: &'static str,
    },
    /// A program is not installed.
    #[error("needs the program `{program}`; `apt-get install -y {package}` brings it")]
    Missing {
        /// What was looked for in PATH.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file of the machine is not there.
    #[error("needs {path}; {mend}")]
    NoFile {
        /// What was looked for.
        path: &'static str,
        /// How to get it.
        mend: &'static str,
    },
    /// What was asked for cannot be, on any machine.
    #[error("{0}")]
    Wrong(String),
    /// A program said no, or nothing.
    #[error("`{command}`: {words}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        words: String,
    },
}

/// A sentence, for whoever reports what went wrong in words.
impl From<PlaceError> for String {
    fn from(error: PlaceError) -> Self {
        error.to_string()
    }
}

impl PlaceError {
    /// Whether the machine lacks something, as opposed to something having gone wrong: exit code 69, not 70.
    pub fn is_lack(&self) -> bool {
        matches!(self, Self::NotRoot { .. } | Self::Missing { .. } | Self::NoFile { .. })
    }
}

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Looked for in PATH and where Debian keeps programs of root.
    pub program: &'static str,
    /// What to install.
    pub package: &'static str,
}

/// Namespaces, interfaces, addresses.
pub const IP: Tool = Tool { program: "ip", package: "iproute2" };
/// Cuts between hosts.
pub const NFT: Tool = Tool { program: "nft", package: "nftables" };
/// Small disks.
pub const MOUNT: Tool = Tool { program: "mount", package: "mount" };
/// Small disks, at their end.
pub const UMOUNT: Tool = Tool { program: "umount", package: "mount" };

impl Tool {
    /// Where it is.
    pub fn find(self) -> Result<PathBuf, PlaceError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
        let mut directories = std::env::split_paths(&path).chain(more);
        let found = directories.find_map(|directory| Some(directory.join(self.program)).filter(|path| path.is_file()));
        found.ok_or(PlaceError::Missing { program: self.program, package: self.package })
    }

    /// Runs it with `input` on its stdin; what it printed.
    pub(crate) async fn run(self, args: &[&str], input: &str) -> Result<String, PlaceError> {
        let failed = |words: String| PlaceError::Failed { command: self.spell(args), words };
        let mut command = Command::new(self.find()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let done = tokio::time::timeout(TOOL_TIMEOUT, async {
            // One that has already refused reads no more, and its own words say why.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        });
        let output = match done.await {
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("not done within {} s", TOOL_TIMEOUT.as_secs()))),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{}: {}", output.status, words.trim().replace('\n', "; "))))
    }

    /// As [`Self::run`] for `drop`, where nothing can be awaited and nobody is left to tell.
    pub(crate) fn run_at_the_end(self, args: &[&str], input: &str) {
        let Ok(path) = self.find() else { return };
        let mut command = std::process::Command::new(path);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut child) = command.spawn() {
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(input.as_bytes());
            }
            let _ = child.wait();
        }
    }

    fn spell(self, args: &[&str]) -> String {
        [&[self.program], args].concat().join(" ")
    }
}

/// Fails where this process may not make namespaces and mounts.
pub fn must_be_root(what: &'static str) -> Result<(), PlaceError> {
    if is_root() { Ok(()) } else { Err(PlaceError::NotRoot { what }) }
}

/// Whether this process has CAP_NET_ADMIN and CAP_SYS_ADMIN, which is what `root` comes down to here.
pub fn is_root() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    effective & NEEDED == NEEDED
}
