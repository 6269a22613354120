//! dhat underneath the counters, for a program that does not know of it: begun by the first allocation if `PERENNIAL_DHAT`
//! names a file, ended by [`crate::trim`].

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// dhat's allocator. Hands on to the system's, and profiles while there is a profiler.
pub(crate) struct Profiled;

static IS_BEGUN: AtomicBool = AtomicBool::new(false);
static PROFILER: Mutex<Option<dhat::Profiler>> = Mutex::new(None);

/// Before anything of the program, because blocks allocated earlier are invisible.
fn begin() {
    // No `Once`: what is allocated in here comes back, and finds the flag set.
    if !IS_BEGUN.load(Ordering::Relaxed)
        && !IS_BEGUN.swap(true, Ordering::Relaxed)
        && let Some(file) = std::env::var_os("PERENNIAL_DHAT")
    {
        let profiler = dhat::Profiler::builder().file_name(file).trim_backtraces(None).build();
        *PROFILER.lock().unwrap_or_else(PoisonError::into_inner) = Some(profiler);
    }
}

/// Ends the profile and writes it, if there is one.
pub(crate) fn finish() {
    drop(PROFILER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

// SAFETY: every method passes its arguments unchanged to `dhat::Alloc` and returns what it returned.
unsafe impl GlobalAlloc for Profiled {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        begin();
        // SAFETY: the caller's promises are handed on.
        unsafe { dhat::Alloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        begin();
        // SAFETY: the caller's promises are handed on.
        unsafe { dhat::Alloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { dhat::Alloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        unsafe { dhat::Alloc.realloc(block, layout, new_size) }
    }
}
