//! Waiting for what must become true, with a deadline and a sentence about what was missing. Nothing here knows nodes.

use std::time::{Duration, Instant};

/// How long a scenario waits for something that normally takes milliseconds. Generous, because a busy machine with two
/// cores runs several scenarios at once; a passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(40);

/// Looks again and again until `check` returns `Ok`, and returns what it found.
///
/// # Panics
///
/// When `deadline` has passed; the message says what was waited for and what the last look missed.
pub async fn eventually<T>(deadline: Duration, what: &str, check: impl AsyncFnMut() -> Result<T, String>) -> T {
    match within(deadline, check).await {
        Ok(found) => found,
        Err(missing) => panic!("not within {deadline:?}: {what}; missing: {missing}"),
    }
}

/// As [`eventually`], for a caller that has an answer to the condition not becoming true.
///
/// # Errors
///
/// What the last look missed.
pub async fn within<T>(deadline: Duration, mut check: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match check().await {
            Ok(found) => return Ok(found),
            Err(missing) if start.elapsed() >= deadline => return Err(missing),
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// `Ok` when it holds, the sentence otherwise. Keeps checks on one line.
///
/// # Errors
///
/// The sentence, when it does not hold.
pub fn must(holds: bool, missing: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(missing()) }
}
