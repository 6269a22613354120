//! Where the control socket lives: its default directory, binding it, removing it, and finding a running node's.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use crate::exit::{Exit, Failure};

/// The longest path a Unix socket address holds on Linux, the closing zero left out.
const PATH_BYTES_MAX: usize = 107;

/// The user this process runs as. Asked of `/proc`, because the standard library has no other safe way.
pub(crate) fn own_uid() -> io::Result<u32> {
    fs::metadata("/proc/self").map(|metadata| metadata.uid())
}

/// The socket of the node whose id begins with `short_id`, in the default directory, which is created if need be.
pub(crate) fn default_path(short_id: &str) -> Result<PathBuf, Failure> {
    let directory = default_directory()?;
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Failure::io(format_args!("create {}", directory.display()), &error)),
    }
    check_directory(&directory)?;
    Ok(directory.join(format!("{short_id}.sock")))
}

fn default_directory() -> Result<PathBuf, Failure> {
    // Some sessions name a runtime directory that nobody has created; they get the same as those that name none.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|directory| directory.is_dir());
    match runtime {
        Some(directory) => Ok(directory.join("perennial")),
        None => {
            let uid = own_uid().map_err(|error| Failure::io("find the own user id in /proc/self", &error))?;
            Ok(PathBuf::from(format!("/tmp/perennial-{uid}")))
        }
    }
}

/// Anybody may create `/tmp/perennial-1000`; a socket in it is trusted only if we did.
fn check_directory(directory: &Path) -> Result<(), Failure> {
    let shown = directory.display();
    let inspect = |error: &io::Error| Failure::io(format_args!("inspect {shown}"), error);
    let metadata = fs::symlink_metadata(directory).map_err(|error| inspect(&error))?;
    let own = own_uid().map_err(|error| inspect(&error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() || metadata.uid() != own {
        return Err(Failure::new(
            Exit::Permission,
            format!("{shown} is not a directory of this user; remove it, or choose a socket with --control PATH"),
        ));
    }
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Permission,
            format!("{shown} has mode {mode:04o}, so others may reach the control socket; run: chmod 700 {shown}"),
        ));
    }
    Ok(())
}

/// A bound socket's file. Dropping it removes the file, unless another node has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    stamp: Stamp,
}

/// What tells our file from a later one of the same name: inode numbers alone are used again at once.
type Stamp = (u64, i64, i64);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if stamp(&self.path).is_ok_and(|stamp| stamp == self.stamp) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    fs::symlink_metadata(path).map(|metadata| (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Binds `path`, mode 0600. The file of a node that is gone is replaced; one that answers is an error.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), Failure> {
    let shown = path.display();
    check_length(path)?;
    remove_stale(path)?;
    let listen = |error: &io::Error| Failure::io(format_args!("listen on control socket {shown}"), error);
    let listener = UnixListener::bind(path).map_err(|error| listen(&error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| listen(&error))?;
    listener.set_nonblocking(true).map_err(|error| listen(&error))?;
    let stamp = stamp(path).map_err(|error| listen(&error))?;
    Ok((listener, SocketFile { path: path.to_owned(), stamp }))
}

fn check_length(path: &Path) -> Result<(), Failure> {
    let length = path.as_os_str().as_bytes().len();
    if length > PATH_BYTES_MAX {
        return Err(Failure::new(
            Exit::Config,
            format!(
                "control socket path of {length} bytes exceeds {PATH_BYTES_MAX}, the most a Unix socket may have: {}",
                path.display()
            ),
        ));
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::io(format_args!("inspect {shown}"), &error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Failure::new(Exit::Config, format!("{shown} exists and is not a socket; it is not replaced")));
    }
    if is_live(path) {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("a node already answers on {shown}; stop it, or choose another socket with --control PATH"),
        ));
    }
    fs::remove_file(path).map_err(|error| Failure::io(format_args!("remove stale socket {shown}"), &error))
}

/// Only a refusal proves that nobody listens. A full backlog, for one, is a busy node.
fn is_live(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

/// The socket of the one node running in the default directory.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    let directory = default_directory()?;
    let mut live = Vec::new();
    if directory.exists() {
        check_directory(&directory)?;
        let listed = fs::read_dir(&directory)
            .map_err(|error| Failure::io(format_args!("list {}", directory.display()), &error))?;
        for entry in listed.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "sock") && is_live(&path) {
                live.push(path);
            }
        }
    }
    live.sort();
    match live.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(no_node(&directory)),
        several => {
            let list: Vec<String> = several.iter().map(|path| format!("\n  --control {}", path.display())).collect();
            Err(Failure::new(Exit::Usage, format!("several nodes are running; choose one with{}", list.concat())))
        }
    }
}

fn no_node(directory: &Path) -> Failure {
    Failure::new(
        Exit::NoNode,
        format!(
            "no node is running (looked in {}); start one with `perennial up`, or name its socket with --control PATH",
            directory.display()
        ),
    )
}

/// Connects to a node's socket.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, Failure> {
    check_length(path)?;
    UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::new(Exit::NoNode, format!("no node is running on {}", path.display()))
        }
        io::ErrorKind::WouldBlock => {
            Failure::new(Exit::Unavailable, format!("the node on {} is busy; try again", path.display()))
        }
        _ => Failure::io(format_args!("connect to {}", path.display()), &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(&path).is_ok());
        assert_eq!(bind(&path).unwrap_err().exit, Exit::Unavailable, "a live socket is not taken over");
        drop((listener, file));
        assert!(!path.exists());
        assert_eq!(connect(&path).unwrap_err().exit, Exit::NoNode);
    }

    #[test]
    fn a_dead_nodes_socket_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed node leaves its file");
        let (_listener, first) = bind(&path).unwrap();

        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists(), "somebody else's socket is not removed");

        let file = dir.path().join("notes");
        fs::write(&file, "x").unwrap();
        assert_eq!(bind(&file).unwrap_err().exit, Exit::Config);
        assert!(file.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_named_with_the_limit() {
        let long = Path::new("/tmp").join("x".repeat(PATH_BYTES_MAX));
        let failure = bind(&long).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.sentence.contains("112 bytes exceeds 107"), "{failure}");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check_directory(dir.path()).unwrap_err().exit, Exit::Permission);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(check_directory(dir.path()).is_ok());
    }
}
