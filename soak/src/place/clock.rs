//! A wall clock of its own for one node, set while it runs: libfaketime, told through a file. The monotonic clock, which
//! timers live by, stays true.
//!
//! Works for programs that find `clock_gettime` in the C library at run time, as every Rust program built for glibc does; a
//! statically linked one would not notice. So whoever sets a clock asks the node what time it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tokio::process::Command;

use crate::netns::tools::PlaceError;

/// The library looks at its file this often, so a clock is set within it.
pub const NOTICED_WITHIN_S: u64 = 1;

/// A clock that can be set.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    file: PathBuf,
    /// One for every start of the node.
    pids: Mutex<Vec<u32>>,
}

impl WallClock {
    /// A true clock, kept in `file`.
    ///
    /// # Errors
    /// libfaketime is not installed, or the file cannot be written.
    pub fn new(file: &Path) -> Result<Self, PlaceError> {
        let library = library()?;
        let clock = Self { library, file: file.to_owned(), pids: Mutex::default() };
        let failed = |error: io::Error| PlaceError::Failed {
            command: format!("write {}", file.display()),
            words: error.to_string(),
        };
        clock.set(0).map_err(failed)?;
        Ok(clock)
    }

    /// Makes a process live by it. What is started by that process does, too.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", NOTICED_WITHIN_S.to_string())
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // Times of files are the machine's.
            .env("NO_FAKE_STAT", "1");
    }

    /// A process lives by it. The library makes shared memory for each, which one that is killed leaves behind; it is
    /// removed with the clock.
    pub fn is_of(&self, pid: u32) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }

    /// Sets it off by so many seconds, forwards or back, from [`NOTICED_WITHIN_S`] on.
    pub fn set(&self, offset_s: i64) -> io::Result<()> {
        // Through a second file: a reader in the middle of a write would see no offset at all.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset_s:+}\n"))?;
        fs::rename(&next, &self.file)
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        let pids = self.pids.get_mut().unwrap_or_else(PoisonError::into_inner);
        for pid in pids {
            // One that ended by itself has taken its own away.
            let _ = fs::remove_file(format!("/dev/shm/faketime_shm_{pid}"));
            let _ = fs::remove_file(format!("/dev/shm/sem.faketime_sem_{pid}"));
        }
    }
}

/// Where Debian keeps the library: in a directory named after the machine's architecture.
pub fn library() -> Result<PathBuf, PlaceError> {
    let mut roots = vec![PathBuf::from("/usr/lib")];
    roots.extend(fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path()));
    let found = roots.into_iter().map(|root| root.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    found.ok_or(PlaceError::NoFile {
        path: "faketime/libfaketimeMT.so.1",
        mend: "`apt-get install -y libfaketime` brings it",
    })
}
