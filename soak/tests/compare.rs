//! The verb `compare` end to end: small measurements of real stock nodes against themselves, and the shape of what is
//! reported. No figure is judged here; that is done on made-up measurements beside the verdict.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const STOCK: &str = env!("CARGO_BIN_EXE_perennial-soak-stock");

fn compare(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perennial-soak")).arg("compare").args(args).output().unwrap()
}

/// The code and the one object on stdout.
fn object(args: &[&str]) -> (Option<i32>, Value) {
    let output = compare(&[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code(), json)
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn stock_against_itself_is_measured_in_pairs_and_not_told_apart() {
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().to_str().unwrap();
    let rows = ["--quick", "--pairs", "2", "--seed", "7", "P6", "--max-ratio", "P6=100"];
    let (code, json) = object(&[&["--a", STOCK, "--b", STOCK, "--out", directory], &rows[..]].concat());
    // Two pairs cannot decide a limit, however generous.
    assert_eq!(code, Some(2), "{json:#}");
    assert_eq!((&json["seed"], &json["pairs"], &json["quick"]), (&7.into(), &2.into(), &true.into()));
    assert!(json["machine"]["load_before"].is_number(), "{json:#}");
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ["P6"]);

    let connection = &rows[0];
    assert_eq!(connection["comparison"], "not-shown", "{connection:#}");
    assert_eq!(connection["ratio"]["coverage"], 0.5);
    for reading in [&connection["a"], &connection["b"]].map(|side| side["readings"].as_array().unwrap()) {
        let bytes: Vec<f64> = reading.iter().map(|bytes| bytes.as_f64().unwrap()).collect();
        assert!(bytes.len() == 2 && bytes.iter().all(|bytes| (30e3..400e3).contains(bytes)), "{bytes:?}");
    }
    assert_eq!(connection["goal"], "not-judged", "a quick run is too small for goals");
    assert!(connection["shrunk"].as_str().unwrap().contains("20 connections"));

    let csv = read(out.path(), "measurements.csv");
    let mut sides: Vec<&str> =
        csv.lines().skip(1).filter(|line| line.contains(",P6,")).map(|line| &line[..3]).collect();
    sides.sort_unstable();
    assert_eq!(sides, ["1,a", "1,b", "2,a", "2,b"]);
    assert!(read(out.path(), "compare.html").contains("perennial-soak-stock"));
    assert_eq!(serde_json::from_str::<Value>(&read(out.path(), "compare.json")).unwrap()["rows"], json["rows"]);
}

#[test]
fn a_subject_that_dies_is_unknown_and_not_beaten() {
    let (code, json) = object(&["--a", STOCK, "--b", "/bin/false", "--quick", "--pairs", "1", "P20"]);
    assert_eq!(code, Some(2), "{json:#}");
    let row = &json["rows"][0];
    assert_eq!((&row["comparison"], &row["ratio"]), (&"unknown".into(), &Value::Null), "{row:#}");
    assert!(row["because"].as_str().unwrap().starts_with("b in pair 1: node 0"), "{row:#}");
    assert!(row["a"]["median"].is_number() && row["b"]["median"].is_null(), "{row:#}");
    assert!(json["headline"].as_str().unwrap().starts_with("UNKNOWN: "), "{json:#}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let code = |args: &[&str]| compare(args).status.code();
    assert_eq!(code(&["P99"]), Some(64));
    assert_eq!(code(&["P6", "--max-ratio", "P6=often"]), Some(64));
    assert_eq!(code(&["--a", STOCK, "--b", STOCK, "P6", "--max-ratio", "P7=1"]), Some(64));
    let output = compare(&["--a", "/nonexistent/perennial", "P6"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("cargo build --release -p perennial-node"), "{stderr}");
}
