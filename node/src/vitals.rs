//! What this process costs at this moment, as `status` reports it: what the library reads of any process, and what only
//! this program knows, its heap and its tasks.
//!
//! What the system does not tell is `None`, never zero.

use perennial::vitals;

/// One look at this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    /// Resident memory. Beware: an allocator keeps it long after the heap has shrunk.
    pub(crate) rss_bytes: Option<u64>,
    /// Live heap and the allocations it is in, with the feature `soak`.
    pub(crate) heap_bytes: Option<u64>,
    pub(crate) heap_blocks: Option<u64>,
    /// Open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Tasks of this runtime, iroh's own included.
    pub(crate) alive_tasks: u64,
}

/// Looks. Must be called within the runtime.
pub(crate) fn look() -> Vitals {
    let process = vitals::Vitals::read();
    let (heap_bytes, heap_blocks) = live_heap().unzip();
    Vitals {
        rss_bytes: process.rss_bytes,
        heap_bytes,
        heap_blocks,
        open_fds: process.open_fds,
        alive_tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
    }
}

#[cfg(feature = "soak")]
fn live_heap() -> Option<(u64, u64)> {
    let live = perennial_heap::live();
    Some((live.bytes, live.blocks))
}

#[cfg(not(feature = "soak"))]
fn live_heap() -> Option<(u64, u64)> {
    None
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
        assert_eq!(before.heap_bytes.is_some(), cfg!(feature = "soak"));
        assert!(before.heap_blocks.is_none_or(|blocks| blocks > 100));
    }
}
