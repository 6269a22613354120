//! Where the control socket lives: its default directory, binding it, removing it, and finding a running node's.
//!
//! Nothing here waits for a node, but for the one question who holds a path that is taken.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::UnixListener;

use crate::{
    client::api::Api,
    control::protocol::TicketView,
    exit::{Exit, Failure},
    names::short,
};

/// The longest path a Unix socket address holds on Linux, the closing zero left out.
const PATH_BYTES_MAX: usize = 107;

/// A node that holds a path says who it is within this long, or stays nameless.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The default directory, whether it is there or not. One that is there must be ours alone.
pub(crate) fn check_default_directory() -> Result<PathBuf, Failure> {
    let directory = default_directory()?;
    if directory.exists() {
        check_directory(&directory)?;
    }
    Ok(directory)
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
pub(crate) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), Failure> {
    let shown = path.display();
    check_length(path)?;
    remove_stale(path).await?;
    let listen = |error: &io::Error| Failure::io(format_args!("listen on control socket {shown}"), error);
    let listener = UnixListener::bind(path).map_err(|error| listen(&error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| listen(&error))?;
    let stamp = stamp(path).map_err(|error| listen(&error))?;
    Ok((listener, SocketFile { path: path.to_owned(), stamp }))
}

pub(crate) fn check_length(path: &Path) -> Result<(), Failure> {
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

async fn remove_stale(path: &Path) -> Result<(), Failure> {
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
            format!(
                "{} already answers on {shown}; stop it, or choose another socket with --control PATH",
                holder(path).await
            ),
        ));
    }
    fs::remove_file(path).map_err(|error| Failure::io(format_args!("remove stale socket {shown}"), &error))?;
    tracing::info!(path = %shown, "the socket of a node that is gone was replaced");
    Ok(())
}

/// Who holds a socket, as far as it tells.
async fn holder(path: &Path) -> String {
    let ticket = Api::of_socket(path.to_owned()).within(HOLDER_TIMEOUT).get::<TicketView>("/v1/ticket").await;
    let node = ticket.map_or_else(|_| "a node".into(), |ticket| format!("node {}", short(ticket.id)));
    let connected = tokio::net::UnixStream::connect(path).await;
    match connected.and_then(|stream| stream.peer_cred()).ok().and_then(|holder| holder.pid()) {
        Some(pid) => format!("{node} (process {pid})"),
        None => node,
    }
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

/// That nobody listens on `path`, or why it cannot be reached.
pub(crate) fn unreachable(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::new(Exit::NoNode, format!("no node is running on {}", path.display()))
        }
        io::ErrorKind::WouldBlock => {
            Failure::new(Exit::Unavailable, format!("the node on {} is busy; try again", path.display()))
        }
        _ => Failure::io(format_args!("connect to {}", path.display()), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let (listener, file) = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = bind(&path).await.unwrap_err();
        assert_eq!(taken.exit, Exit::Unavailable, "a live socket is not taken over");
        let holder = format!("a node (process {}) already answers on", std::process::id());
        assert!(taken.sentence.starts_with(&holder), "even one that says nothing is told by its process: {taken}");
        drop((listener, file));
        assert!(!path.exists() && !is_live(&path));
    }

    #[tokio::test]
    async fn a_dead_nodes_socket_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed node leaves its file");
        let (_listener, first) = bind(&path).await.unwrap();

        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists(), "somebody else's socket is not removed");

        let file = dir.path().join("notes");
        fs::write(&file, "x").unwrap();
        assert_eq!(bind(&file).await.unwrap_err().exit, Exit::Config);
        assert!(file.exists());
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_named_with_the_limit() {
        let long = Path::new("/tmp").join("x".repeat(PATH_BYTES_MAX));
        let failure = bind(&long).await.unwrap_err();
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
