//! Profiles that are there already: shown, and held against each other.

mod program;

use std::path::PathBuf;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/dhat-heap.json");

#[test]
fn a_profile_that_grew_is_told_by_bucket_and_by_call_site() {
    let grown = std::fs::read_to_string(SAMPLE).unwrap().replace("\"eb\": 700,", "\"eb\": 70700,");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("grown.json");
    std::fs::write(&file, grown).unwrap();
    let told = program::run(&["diff", SAMPLE, file.to_str().unwrap(), "--per", "7"]);
    program::expect_exit(3, &told);
    let site = told.stdout.lines().find(|line| line.contains("gossip-state: ")).expect("the call site is named");
    assert!(site.trim_start().starts_with("+10.0 KB") && site.contains("iroh_gossip::proto::topic"), "{site}");
    program::expect_exit(0, &program::run(&["diff", SAMPLE, SAMPLE]));
}

#[test]
fn a_profile_is_shown_by_bucket_and_what_is_none_is_refused() {
    let told = program::run(&["open", SAMPLE, "--json"]);
    program::expect_exit(0, &told);
    let shown: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&shown["v"], &shown["live_bytes"]), (&1.into(), &3_016_564.into()));
    assert_eq!(shown["buckets"]["gossip-state"]["blocks"], 7);
    let told = program::run(&["open", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    program::expect_exit(70, &told);
    assert!(told.stderr.contains("not a dhat heap profile"), "{told}");
}

#[test]
fn what_cannot_be_asked_is_usage() {
    for args in
        [&["measure", "nothing"][..], &["ladder", "--rungs", "3,2,1"], &["bless", "--why", " "], &["frobnicate"]]
    {
        let told = program::run(args);
        program::expect_exit(64, &told);
        assert!(told.stderr.starts_with("error: "), "{told}");
    }
}
