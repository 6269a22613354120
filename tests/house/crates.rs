//! The rules between packages: who may depend on whom, and what no text file of the repository may name.

use std::fs;

use crate::{rules, sources};

/// Who may depend on which package of this repository. A package that is not listed fails the test until it is.
const ALLOWED: &[(&str, &[&str])] = &[
    ("actors", &[]),
    ("node", &["perennial", "perennial-heap"]),
    ("soak", &["perennial", "perennial-heap"]),
    ("soak/heap", &[]),
    ("profiles", &["perennial"]),
    ("tests", &["perennial", "perennial-heap", "perennial-soak"]),
];

/// Every package of this repository, as other packages name it.
const PACKAGES: &[&str] =
    &["perennial", "perennial-heap", "perennial-node", "perennial-soak", "perennial-profiles", "perennial-tests"];

#[test]
fn packages_point_one_way() {
    let workspace = read("Cargo.toml");
    let members = workspace.lines().find(|line| line.starts_with("members")).expect("the workspace lists its members");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    for member in members {
        let allowed = ALLOWED.iter().find(|(room, _)| *room == member);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{member} is new: say in ALLOWED what it may depend on"));
        let wrong = wrong_dependencies(&read(&format!("{member}/Cargo.toml")), allowed);
        assert!(wrong.is_empty(), "{member} may depend on {allowed:?} of this repository, not on {wrong:?}");
    }
}

#[test]
fn a_dependency_that_points_back_is_noticed() {
    let manifest =
        "[package]\nname = \"perennial\"\n[dependencies]\nbytes = \"1\"\nperennial-node = { path = \"../node\" }\n";
    assert_eq!(wrong_dependencies(manifest, &[]), ["perennial-node"]);
    let manifest = "[dev-dependencies]\nperennial.workspace = true\n[target.'cfg(unix)'.dependencies]\nsoak = { package = \"perennial-soak\" }\n";
    assert_eq!(wrong_dependencies(manifest, &["perennial"]), ["perennial-soak"]);
}

#[test]
fn no_text_names_a_folder_of_one_machine() {
    let mut violations = Vec::new();
    for (path, text) in sources::text_files() {
        let lines = text.lines().enumerate().filter(|(_, line)| rules::names_a_machine(line));
        violations.extend(lines.map(|(index, line)| format!("{path}:{}: {}", index + 1, line.trim())));
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Packages of this repository that a manifest depends on without leave.
fn wrong_dependencies(manifest: &str, allowed: &[&str]) -> Vec<String> {
    let mut is_dependencies = false;
    let mut wrong = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependencies = line.contains("dependencies");
        } else if is_dependencies {
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let renamed = line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            let name = renamed.unwrap_or(key);
            if PACKAGES.contains(&name) && !allowed.contains(&name) {
                wrong.push(name.to_owned());
            }
        }
    }
    wrong
}

fn read(path: &str) -> String {
    fs::read_to_string(sources::root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}
