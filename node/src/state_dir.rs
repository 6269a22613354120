//! `--state-dir`: what a node remembers on disk, so that a restart finds back to its topics without being told whom to join.
//!
//! One file, replaced as a whole: written beside, flushed, renamed. What is in it is `state_dir/record.rs`; what a mesh has to
//! remember it says itself. A file that cannot be read is put aside and never ends the node.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh::EndpointAddr;
use perennial::{Mesh, TopicId};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    exit::{Exit, Failure},
    output::say,
};

mod record;

use record::Record;

const FILE: &str = "peers.json";

/// How often it is looked for changes that no event tells of.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Neighbours come and go in bursts; this long after the first one the burst is written.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// More than a full record takes (1024 known remotes and 64 topics of eight, with eight addresses each).
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The memory of one node on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    record: Mutex<Kept>,
    neighbors_changed: Notify,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    written: Option<Record>,
    /// Attempts to write that have failed since one did not.
    failed: u64,
}

/// What is worth a line after an attempt to write.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Fails,
    WorksAgain { failed: u64 },
}

impl Kept {
    /// A disk that is full is tried with every change and says the same each time: its beginning is told, and its end.
    fn word_on(&mut self, is_written: bool) -> Option<Word> {
        if is_written {
            let failed = std::mem::take(&mut self.failed);
            (failed > 0).then_some(Word::WorksAgain { failed })
        } else {
            self.failed += 1;
            (self.failed == 1).then_some(Word::Fails)
        }
    }
}

impl StateDir {
    /// Opens the directory, which is created (mode 0700) where it is missing, and reads what is in it. That it can be
    /// written is tried at once.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        let shown = directory.display();
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::io(format_args!("create state directory {shown}"), &error)),
        }
        check_directory(directory)?;
        let record = read(&directory.join(FILE))?;
        let kept = Kept { record: record.unwrap_or_else(Record::new), written: None, failed: 0 };
        let state = Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                record: Mutex::new(kept),
                neighbors_changed: Notify::new(),
            }),
        };
        state.write_changes().map_err(|error| Failure::io(format_args!("write to state directory {shown}"), &error))?;
        Ok(state)
    }

    /// Whom an earlier life had for neighbours on `topic`.
    pub(crate) fn neighbors(&self, topic: TopicId) -> Vec<EndpointAddr> {
        self.lock().record.neighbors(topic)
    }

    /// Whom an earlier life knew.
    pub(crate) fn known(&self) -> Vec<EndpointAddr> {
        self.lock().record.known()
    }

    /// A neighbour has come or gone.
    pub(crate) fn on_neighbors_changed(&self) {
        self.shared.neighbors_changed.notify_one();
    }

    /// Writes what changes, until it is aborted.
    pub(crate) async fn keep(self, mesh: Mesh) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Both lead to the same look; the order does not matter.
                () = self.shared.neighbors_changed.notified() => sleep(DEBOUNCE).await,
                _ = look.tick() => {}
            }
            self.save(&mesh).await;
        }
    }

    /// Writes what has changed. That it cannot be written is told once, and it is tried again with the next change.
    pub(crate) async fn save(&self, mesh: &Mesh) {
        // A mesh that has ended has nothing new to say.
        let Ok(memory) = mesh.memory().await else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.lock().record.take_in(&memory, |remote| mesh.failures(remote), now);
        // A flush of a few kilobytes; the runtime moves its other tasks elsewhere meanwhile.
        let written = tokio::task::block_in_place(|| self.write_changes());
        let directory = self.shared.directory.display();
        let word = self.lock().word_on(written.is_ok());
        match (word, written) {
            (Some(Word::Fails), Err(error)) => {
                tracing::warn!(%directory, %error, "cannot keep what this node remembers");
            }
            (Some(Word::WorksAgain { failed }), _) => {
                tracing::info!(%directory, failed, "can keep again what this node remembers");
            }
            (Some(Word::Fails) | None, _) => {}
        }
    }

    fn write_changes(&self) -> io::Result<()> {
        let mut kept = self.lock();
        if kept.written.as_ref() != Some(&kept.record) {
            write(&self.shared.directory, &kept.record.to_json())?;
            kept.written = Some(kept.record.clone());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while holding it.
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who may write here decides whom this node meets.
pub(crate) fn check_directory(directory: &Path) -> Result<(), Failure> {
    let shown = directory.display();
    let metadata = fs::metadata(directory)
        .map_err(|error| Failure::io(format_args!("inspect state directory {shown}"), &error))?;
    if !metadata.is_dir() {
        return Err(Failure::new(Exit::Io, format!("state directory {shown} is a file; name a directory instead")));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Permission,
            format!(
                "state directory {shown} has mode {mode:04o}, so others may use what is in it; run: chmod 700 {shown}"
            ),
        ));
    }
    Ok(())
}

/// What an earlier life wrote; `None` where there is nothing that can be read.
fn read(path: &Path) -> Result<Option<Record>, Failure> {
    let shown = path.display();
    let failure = |error: &io::Error| Failure::io(format_args!("read state file {shown}"), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(&error)),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| failure(&error))?;
    let parsed = match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(format!("has more than {FILE_BYTES_MAX} bytes; a few hundred kilobytes would be right")),
        false => Record::parse(&text),
    };
    match parsed {
        Ok(record) => Ok(Some(record)),
        Err(sentence) => {
            let aside = path.with_extension("json.bad");
            fs::rename(path, &aside)
                .map_err(|error| Failure::io(format_args!("put {shown} aside as {}", aside.display()), &error))?;
            say(format_args!(
                "warning: state file {shown} {sentence}; it is kept as {}, and this node starts without memories",
                aside.display()
            ));
            Ok(None)
        }
    }
}

/// Replaces the file as a whole: whoever reads it, or dies while writing it, finds the old one or the new one.
fn write(directory: &Path, text: &[u8]) -> io::Result<()> {
    let (path, beside) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
    // One left behind by a life that was killed is in the way, whatever it is.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    // Without this the name may point nowhere after a power cut.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_when_it_begins_and_when_it_is_over() {
        let mut kept = Kept { record: Record::new(), written: None, failed: 0 };
        let words: Vec<Option<Word>> =
            [true, false, false, false, true, true].into_iter().map(|written| kept.word_on(written)).collect();
        assert_eq!(words, [None, Some(Word::Fails), None, None, Some(Word::WorksAgain { failed: 3 }), None]);
    }

    #[test]
    fn a_fresh_directory_is_private_and_holds_a_readable_record() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("state");
        StateDir::open(&directory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
        assert!(read(&directory.join(FILE)).unwrap().is_some());
        fs::write(directory.join("peers.json.new"), "half a rec").unwrap();
        StateDir::open(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "what a killed life left is gone");
    }

    #[test]
    fn what_cannot_be_read_is_kept_aside() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("state");
        StateDir::open(&directory).unwrap();
        for text in ["{", r#"{"v":99}"#] {
            fs::write(directory.join(FILE), text).unwrap();
            let state = StateDir::open(&directory).unwrap();
            assert_eq!(state.known(), []);
            assert_eq!(fs::read_to_string(directory.join("peers.json.bad")).unwrap(), text);
            assert!(read(&directory.join(FILE)).unwrap().is_some());
        }
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_refused_with_the_cure() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("file");
        fs::write(&file, "").unwrap();
        for unusable in [file.clone(), file.join("below"), outer.path().join("no/parent")] {
            assert_eq!(StateDir::open(&unusable).unwrap_err().exit, Exit::Io, "{}", unusable.display());
        }
        let shared = outer.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o750)).unwrap();
        let failure = StateDir::open(&shared).unwrap_err();
        assert_eq!(failure.exit, Exit::Permission);
        assert!(failure.sentence.ends_with(&format!("run: chmod 700 {}", shared.display())), "{failure}");
    }
}
