//! A disk of a few pages for one node, to be filled and freed: a tmpfs under the run's own scratch directory. Needs root.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::netns::{
    leftovers,
    tools::{MOUNT, PlaceError, UMOUNT, must_be_root},
};

/// What a state directory gets: room for a few rewrites of what a node remembers, and full at once.
pub const BYTES: u64 = 64 << 10;

/// The file that takes the room.
const BALLAST: &str = "ballast";

/// A mounted disk. Dropping it takes it away, also from under a process that still uses it.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
    bytes: u64,
}

impl SmallDisk {
    /// Mounts one of so many bytes at `directory`, which is made, for the user only. `node` only names it.
    ///
    /// # Errors
    /// No root, no `mount`, or what it said.
    pub async fn mount(directory: &Path, node: usize, bytes: u64) -> Result<Self, PlaceError> {
        must_be_root("small disks")?;
        let failed = |error: io::Error| PlaceError::Failed {
            command: format!("mkdir {}", directory.display()),
            words: error.to_string(),
        };
        DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(failed)?;
        let names = leftovers::names().ok_or(PlaceError::NoFile { path: "/proc/self/stat", mend: "mount /proc" })?;
        let (options, path) = (format!("size={bytes},mode=0700"), directory.display().to_string());
        // Made before the mount: whoever is interrupted in between takes away what is there.
        let disk = Self { directory: directory.to_owned(), bytes };
        MOUNT.run(&["-t", "tmpfs", "-o", &options, &names.disk(node), &path], "").await?;
        Ok(disk)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes until the kernel says that no room is left. Answers the bytes it took.
    ///
    /// # Errors
    /// The disk took more than it has, so it is not the one that was mounted; or another error than a full disk.
    pub fn fill(&self) -> io::Result<u64> {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.directory.join(BALLAST))?;
        let mut written = 0;
        while written <= self.bytes {
            match ballast.write(&[0; 4096]) {
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(written),
                Err(error) => return Err(error),
            }
        }
        fs::remove_file(self.directory.join(BALLAST))?;
        Err(io::Error::other(format!("{} is no disk of {} bytes", self.directory.display(), self.bytes)))
    }

    /// Gives back the room that [`Self::fill`] took.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.directory.join(BALLAST))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that has not ended yet must not keep it.
        UMOUNT.run_at_the_end(&["-l", &self.directory.display().to_string()], "");
    }
}
