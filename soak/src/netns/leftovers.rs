//! What a run that was killed could not remove: its namespaces and its mounts, found by name, removed once its process
//! is gone. Nothing of a living process, of another container, or of anybody else is touched.

use std::fs;

use super::{
    names::{Names, Owner, owner},
    tools::{IP, UMOUNT, is_root},
};

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

/// Things of dead owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Directories with a file system of ours.
    pub mounts: Vec<String>,
}

impl Leftovers {
    /// What is there now.
    pub fn find() -> Self {
        let Some(me) = me() else { return Self::default() };
        let is_left = |name: &str| owner(name).is_some_and(|owner| is_dead(&owner, &me));
        let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (source, directory) = (words.next()?, words.next()?);
            is_left(source).then(|| directory.to_owned())
        });
        Self { namespaces: names.filter(|name| is_left(name)).collect(), mounts: mounts.collect() }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.mounts.is_empty()
    }

    /// Removes them, as far as this process may.
    pub fn remove(&self) {
        if self.is_empty() || !is_root() {
            return;
        }
        for directory in &self.mounts {
            UMOUNT.run_at_the_end(&["-l", directory], "");
        }
        remove_namespaces(&self.namespaces);
    }
}

/// Removes namespaces by name. One that is not there is no error.
pub(crate) fn remove_namespaces(names: &[String]) {
    if names.is_empty() {
        return;
    }
    let batch: String = names.iter().map(|name| format!("netns del {name}\n")).collect();
    // Forced: the first name that is gone already must not keep the others.
    IP.run_at_the_end(&["-force", "-batch", "-"], &batch);
}

/// Names for one network of this process.
pub(crate) fn names() -> Option<Names> {
    Some(Names { owner: me()?, run: rand::random() })
}

fn me() -> Option<Owner> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    let inode = link.to_string_lossy().trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    let pid = std::process::id();
    let (_, started_ticks) = stat(pid)?;
    Some(Owner { pid_namespace: inode, pid, started_ticks })
}

fn is_dead(owner: &Owner, me: &Owner) -> bool {
    if owner.pid_namespace != me.pid_namespace {
        return false;
    }
    match stat(owner.pid) {
        // A zombie holds nothing any more.
        Some((state, started_ticks)) => started_ticks != owner.started_ticks || matches!(state, 'Z' | 'X'),
        None => true,
    }
}

/// State and start of a process. Its name, in brackets, may hold anything.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &text[text.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The twenty-second field of all; the name was the second.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_predecessor_does_not() {
        let me = me().unwrap();
        assert!(!is_dead(&me, &me));
        assert!(is_dead(&Owner { started_ticks: me.started_ticks + 1, ..me }, &me), "the number was used again");
        assert!(is_dead(&Owner { pid: u32::MAX, ..me }, &me));
        assert!(!is_dead(&Owner { pid: u32::MAX, pid_namespace: 1, ..me }, &me), "nobody here can tell");
    }
}
