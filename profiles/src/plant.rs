//! A leak on purpose, so that the ladder can be seen to find one.

/// Leaves one block behind.
#[inline(never)]
pub(crate) fn leave_behind(bytes: usize) {
    // Touched, so that no compiler takes it for unused.
    Box::leak(vec![1_u8; bytes].into_boxed_slice())[0] = 2;
}
