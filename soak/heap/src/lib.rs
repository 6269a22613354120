//! A counting allocator in front of the system's: live bytes and live blocks of a process that is soaked. Nothing is
//! judged here, and no shipped node links it.
//!
//! Sharded, because one shared counter costs more than the allocation it counts once several threads contend for it.
//! A block may be freed on another thread than it was allocated on, so a single shard may be negative; the sum is not.
//!
//! With the feature `dhat` every block is profiled as well, in `profile.rs`: a real node is profiled without a line of its own.
#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait and malloc_trim a foreign function; both are handed on as they came"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};

#[cfg(feature = "dhat")]
mod profile;

/// What is counted in front of.
#[cfg(feature = "dhat")]
use profile::Profiled as Underneath;
#[cfg(not(feature = "dhat"))]
use std::alloc::System as Underneath;

/// The allocator. A program that declares one as its `#[global_allocator]` can ask [`live`].
#[derive(Debug)]
pub struct Counting;

/// What is allocated and not freed, in this whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Bytes, as they were asked for.
    pub bytes: u64,
    /// Allocations.
    pub blocks: u64,
}

/// Counts what lives at this moment. Zero where [`Counting`] is not the allocator.
pub fn live() -> Live {
    let sum = |counter: fn(&Shard) -> &AtomicI64| {
        let sum: i64 = SHARDS.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum();
        u64::try_from(sum).unwrap_or(0)
    };
    Live { bytes: sum(|shard| &shard.bytes), blocks: sum(|shard| &shard.blocks) }
}

/// Gives free memory back to the system, so that resident memory says something. `None` where the allocator underneath
/// is not glibc's and cannot be asked; otherwise whether there was anything to give.
///
/// Walks every arena and takes milliseconds for a heap of some megabytes, during which threads that allocate wait. With the
/// feature `dhat` a profile that was begun ends here and is written, which takes seconds.
pub fn trim() -> Option<bool> {
    #[cfg(feature = "dhat")]
    profile::finish();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim(3) takes any padding, touches only what is free, and locks what it walks.
        Some(unsafe { malloc_trim(0) } != 0)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Power of two, at least as many as the cores of the machines we soak on. Guess; change it when a profile shows it.
const SHARDS_MAX: usize = 32;

/// Padded to a cache line, so that two shards never share one.
#[repr(align(128))]
struct Shard {
    bytes: AtomicI64,
    blocks: AtomicI64,
}

static SHARDS: [Shard; SHARDS_MAX] =
    [const { Shard { bytes: AtomicI64::new(0), blocks: AtomicI64::new(0) } }; SHARDS_MAX];
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Const and without a destructor: touching it never allocates, which an allocator must not do.
    static MY_SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count(bytes: i64, blocks: i64) {
    // A thread that is being torn down has no thread-locals any more and counts into the first shard.
    let shard = MY_SHARD
        .try_with(|mine| {
            if mine.get() == usize::MAX {
                mine.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS_MAX);
            }
            mine.get()
        })
        .unwrap_or(0);
    SHARDS[shard].bytes.fetch_add(bytes, Ordering::Relaxed);
    if blocks != 0 {
        SHARDS[shard].blocks.fetch_add(blocks, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments unchanged to `Underneath` and returns what it returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let block = unsafe { Underneath.alloc(layout) };
        if !block.is_null() {
            count(layout.size() as i64, 1);
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let block = unsafe { Underneath.alloc_zeroed(layout) };
        if !block.is_null() {
            count(layout.size() as i64, 1);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { Underneath.dealloc(block, layout) };
        count(-(layout.size() as i64), -1);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let moved = unsafe { Underneath.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count(new_size as i64 - layout.size() as i64, 0);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static HEAP: Counting = Counting;

    #[test]
    fn bytes_and_blocks_are_seen_and_seen_to_go() {
        const BYTES: u64 = 64 << 20;
        const BLOCKS: u64 = 100_000;
        let before = live();
        let large = vec![1_u8; BYTES as usize];
        let many: Vec<Box<u64>> = (0..BLOCKS).map(Box::new).collect();
        let during = live();
        drop((large, many));
        let after = live();
        // The test's own harness allocates at the same time, a few megabytes at most.
        assert!(during.bytes >= before.bytes + BYTES / 2, "{before:?} → {during:?}");
        assert!(during.blocks >= before.blocks + BLOCKS / 2, "{before:?} → {during:?}");
        assert!(after.bytes <= during.bytes - BYTES / 2, "{during:?} → {after:?}");
        assert!(after.blocks <= during.blocks - BLOCKS / 2, "{during:?} → {after:?}");
    }

    #[test]
    fn glibc_trims_and_everybody_else_says_that_it_cannot() {
        assert_eq!(trim().is_some(), cfg!(all(target_os = "linux", target_env = "gnu")));
    }
}
