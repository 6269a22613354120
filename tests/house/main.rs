//! The house rules, read from the repository's own sources as text. What a reviewer would otherwise have to look for
//! each time is looked for here; each rule proves on a planted violation that it would notice.
//!
//! `rules.rs` judges one file, `crates.rs` the packages, `sources.rs` finds and reads what is judged.

mod crates;
mod rules;
mod sources;

use rules::RULES;

#[test]
fn every_source_file_keeps_every_rule() {
    let files = sources::rust_files();
    assert!(files.len() > 10, "only {} files found: the rules look in the wrong place", files.len());
    let violations: Vec<String> =
        files.iter().flat_map(|file| RULES.iter().flat_map(move |rule| rule.violations(file))).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn every_rule_notices_its_planted_violation() {
    for rule in RULES {
        for (number, planted) in rule.planted.iter().enumerate() {
            let file = sources::SourceFile::planted(planted.path, planted.text);
            let found = rule.violations(&file);
            assert!(!found.is_empty(), "{}: planted violation {number} goes unnoticed:\n{}", rule.name, planted.text);
        }
        for (number, innocent) in rule.innocent.iter().enumerate() {
            let file = sources::SourceFile::planted(innocent.path, innocent.text);
            let found = rule.violations(&file);
            assert!(found.is_empty(), "{}: innocent text {number} is accused: {}", rule.name, found.join("\n"));
        }
    }
}

#[test]
fn exceptions_are_still_needed() {
    let files = sources::rust_files();
    let stale: Vec<String> = rules::stale_exceptions(&files);
    assert!(stale.is_empty(), "exceptions nobody needs any more, take them out:\n{}", stale.join("\n"));
}
