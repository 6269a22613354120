//! The ladder names a call site that leaks, with what it leaks.

mod program;

#[test]
fn a_planted_leak_is_found_and_named() {
    let ladder = ["ladder", "house", "--rungs", "1,2,3,4,5", "--rest", "0", "--plant", "1000"];
    let told = program::run(&ladder);
    program::expect_exit(1, &told);
    let named = told.stdout.lines().find(|line| line.contains("plant::leave_behind"));
    let named = named.unwrap_or_else(|| panic!("the leak is not named:\n{told}"));
    assert!(named.contains("+1000.0 bytes  +1.00 blocks a round trip, 5000 B at the end"), "{named}");
}
