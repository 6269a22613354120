//! `perennial demo` as the README shows it, a little smaller.

use std::time::{Duration, Instant};

use crate::process::{run_expecting, text};

#[test]
fn the_demo_passes_and_shows_every_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let output = run_expecting(dir.path(), 0, &["demo", "--nodes", "3", "--kills", "1", "--seed", "7"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(shown.matches("every task is accounted for").count(), 3, "{shown}");
    assert!(shown.contains("started 2 times"), "{shown}");
    assert!(said.contains("seed 7") && said.contains("SIGKILL") && said.contains("0 lost, 0 orphans"), "{said}");
    assert!(!said.contains('\u{1b}'), "colour is for terminals: {said:?}");
}
