//! Counts every panic of this process, those that a supervisor catches included. One hook for the program; the library
//! installs none.

use std::{
    panic,
    sync::atomic::{AtomicU64, Ordering},
};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts from here on, and then does what was done before: a line on stderr.
pub(crate) fn install() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panicked);
    }));
}

/// Panics since the start.
pub(crate) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_caught_is_counted() {
        install();
        let before = count();
        assert!(panic::catch_unwind(|| panic!("on purpose")).is_err());
        assert!(count() > before);
    }
}
