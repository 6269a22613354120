//! What this process costs at this moment: memory, file descriptors, tasks. Only our own process is looked at.
//!
//! What the system does not tell is `None`, never zero.

/// One look at this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    /// Resident memory. Beware: an allocator keeps it long after the heap has shrunk.
    pub(crate) rss_bytes: Option<u64>,
    /// Live heap, with the feature `count-heap`.
    pub(crate) heap_bytes: Option<u64>,
    /// Open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Tasks of this runtime, iroh's own included.
    pub(crate) alive_tasks: u64,
}

/// Looks. Must be called within the runtime.
pub(crate) fn look() -> Vitals {
    Vitals {
        rss_bytes: rss_bytes(),
        heap_bytes: heap_bytes(),
        open_fds: open_fds(),
        alive_tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
    }
}

/// `status` rather than `statm`: it counts in kB, so nobody has to know the size of a page.
fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(feature = "count-heap")]
fn heap_bytes() -> Option<u64> {
    Some(crate::heap::live_bytes())
}

#[cfg(not(feature = "count-heap"))]
fn heap_bytes() -> Option<u64> {
    None
}

/// The descriptor of the listing itself is not counted.
fn open_fds() -> Option<u64> {
    let listed = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_sees_itself() {
        let before = look();
        assert!(before.rss_bytes.is_none_or(|bytes| bytes > 100_000));
        let _file = std::fs::File::open("/").unwrap();
        if let (Some(before), Some(after)) = (before.open_fds, look().open_fds) {
            assert!(before >= 3 && after > 0, "{before} then {after}");
        }
        assert_eq!(before.heap_bytes.is_some(), cfg!(feature = "count-heap"));
    }
}
