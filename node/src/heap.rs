//! A counting allocator in front of the system's, for the feature `count-heap`: live bytes for `status`.
//!
//! Sharded, because one shared counter costs more than the allocation it counts once several threads contend for it.
//! A block may be freed on another thread than it was allocated on, so a single shard may be negative; the sum is not.
#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; every call is handed to the system's allocator as it came"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};

/// Power of two, at least as many as the cores of the machines we soak on. Guess; change it when a profile shows it.
const SHARDS: usize = 32;

/// Padded to a cache line, so that two shards never share one.
#[repr(align(128))]
struct Shard(AtomicI64);

static SHARD_OF: [Shard; SHARDS] = [const { Shard(AtomicI64::new(0)) }; SHARDS];
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Const and without a destructor: touching it never allocates, which an allocator must not do.
    static MY_SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// Bytes allocated and not freed, in this whole process.
pub(crate) fn live_bytes() -> u64 {
    let sum: i64 = SHARD_OF.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
}

fn count(bytes: i64) {
    // A thread that is being torn down has no thread-locals any more and counts into the first shard.
    let shard = MY_SHARD
        .try_with(|mine| {
            if mine.get() == usize::MAX {
                mine.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
            }
            mine.get()
        })
        .unwrap_or(0);
    SHARD_OF[shard].0.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: every method passes its arguments unchanged to `System` and returns what it returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            count(layout.size() as i64);
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            count(layout.size() as i64);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(block, layout) };
        count(-(layout.size() as i64));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count(new_size as i64 - layout.size() as i64);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_block_is_seen_and_seen_to_go() {
        const BYTES: usize = 64 << 20;
        let before = live_bytes();
        let block = vec![1_u8; BYTES];
        let during = live_bytes();
        drop(block);
        let after = live_bytes();
        // Other tests allocate at the same time, a few megabytes at most.
        assert!(during >= before + (BYTES as u64) / 2, "{before} → {during}");
        assert!(after <= during - (BYTES as u64) / 2, "{during} → {after}");
    }
}
