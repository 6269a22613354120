//! The verb `flood` end to end: a small flood of real processes, and the shape of what it reports. No figure is judged
//! here; that is done on written-down evidence beside the criteria.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn soak(args: &[&str], report: &Path) -> (Option<i32>, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_perennial-soak"))
        .arg("flood")
        .args(args)
        .args(["--json", "--report"])
        .arg(report)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code(), json, stderr)
}

/// The node, where the workspace has been built as a whole.
fn node() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_perennial-soak"));
    let node = beside.with_file_name(format!("perennial{}", std::env::consts::EXE_SUFFIX));
    node.is_file().then_some(node)
}

#[test]
fn a_small_flood_is_judged_by_all_eight_criteria() {
    let Some(_node) = node() else {
        eprintln!("skipped: no `perennial` beside the harness; `cargo test --workspace` builds one");
        return;
    };
    let report = tempfile::tempdir().unwrap();
    let phases = ["--before", "3s", "--hold", "2s", "--after", "12s"];
    let args = [&["spoofed:200", "--subject", "ours"], &phases[..]].concat();
    let (code, json, stderr) = soak(&args, report.path());
    assert!(matches!(code, Some(0..=2)), "{code:?}: {stderr}");
    let floods = json["floods"].as_array().unwrap();
    assert_eq!(floods.len(), 2, "a quiet run, then the flood");
    assert!(floods[0]["evidence"]["kind"].is_null());

    let flood = &floods[1];
    assert_eq!(flood["checks"].as_array().unwrap().len(), 8, "{flood:#}");
    let evidence = &flood["evidence"];
    assert_eq!(evidence["attacker"]["tally"]["sent"], 200);
    assert!(evidence["before"]["published"].as_u64().unwrap() > 20, "{evidence:#}");
    assert!(evidence["flood"]["published"].as_u64().unwrap() > 10, "{evidence:#}");
    for figure in ["tasks", "own_tasks", "rss", "connections"] {
        let course = &evidence[figure];
        assert!(course["before"].is_number() && course["peak"].is_number() && course["rest"].is_number(), "{figure}");
    }
    for figure in ["connection_cap", "status_p99_ms", "victim_cpu_ms", "half_open_peak"] {
        assert!(evidence[figure].is_number(), "{figure}: {evidence:#}");
    }
    for name in ["flood.json", "flood.txt", "spoofed-200-ours.samples.json", "spoofed-200-ours.probes.json"] {
        assert!(report.path().join(name).is_file(), "no {name}");
    }
}

#[test]
fn strangers_who_come_and_go_are_let_in_by_stock_and_by_a_bare_endpoint() {
    let report = tempfile::tempdir().unwrap();
    let args = ["come-and-go:20", "--subject", "stock", "--rounds", "1", "--rest", "3s"];
    let (code, json, stderr) = soak(&args, report.path());
    assert_eq!(code, Some(2), "without ours nothing is judged: {stderr}");
    let rounds = json["rounds"].as_array().unwrap();
    let subjects: Vec<&str> = rounds.iter().map(|round| round["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["stock", "bare"]);
    for round in rounds {
        assert_eq!(round["tally"]["finished"], 20, "{round:#}");
        assert!(round["left_per_identity"].is_number(), "{round:#}");
    }
}
