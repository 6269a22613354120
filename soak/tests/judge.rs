//! The judge over archived runs, and the teeth: three recorded stock runs must fail, the recorded clean one must pass, and
//! the selftest must come out as it must. The verbs are run as a user runs them.

use std::process::{Command, Output};

use serde_json::Value;

fn soak(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perennial-soak")).args(args).output().unwrap()
}

fn sample(name: &str) -> String {
    format!("{}/samples/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn first_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn archived_stock_runs_fail_with_the_leak_by_name() {
    for name in ["stock-rotate-7", "stock-rotate-8", "stock-rotate-9"] {
        let output = soak(&["judge", &sample(name)]);
        let said = first_line(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.starts_with("FAIL I2: ") && said.contains("connections have no peer"), "{name}: {said}");
        let json = soak(&["judge", "--json", &sample(name)]);
        let verdict: Value = serde_json::from_slice(&json.stdout).unwrap();
        let heap = verdict["checks"].as_array().unwrap().iter().find(|check| check["id"] == "I7").unwrap();
        assert_eq!(heap["outcome"], "fail", "{name}: {heap}");
    }
}

#[test]
fn the_archived_clean_run_passes() {
    let output = soak(&["judge", &sample("perennial-rotate-7")]);
    let said = first_line(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("PASS "), "{said}");
}

#[test]
fn of_several_runs_the_worst_decides() {
    let (clean, stock) = (sample("perennial-rotate-7"), sample("stock-rotate-7"));
    assert_eq!(soak(&["judge", &clean, &stock]).status.code(), Some(1));
    let output = soak(&["judge", &clean, "/nonexistent"]);
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no run.json here; is this a run?"));
}

#[test]
fn a_damaged_record_is_refused_by_line() {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(sample("perennial-rotate-7")).unwrap().flatten() {
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    let path = directory.path().join("barriers.csv");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.truncate(text.trim_end().len() - 4);
    text.push_str(",9,9\n");
    std::fs::write(&path, text).unwrap();
    let output = soak(&["judge", directory.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(70));
    assert!(said.contains("barriers.csv line ") && said.contains("cells under a header of"), "{said}");
}

#[test]
fn the_selftest_comes_out_as_it_must() {
    let output = soak(&["selftest"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_report_is_one_page_a_plot_and_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (html, svg, md) = (file("a.html"), file("a.svg"), file("a.md"));
    let output = soak(&["report", &sample("stock-rotate-7"), "--html", &html, "--svg", &svg, "--md", &md]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert!(read(&html).contains("<h1 class=\"fail\">FAIL I2"));
    assert!(read(&svg).starts_with("<svg ") && read(&svg).contains("budget"));
    assert!(read(&md).starts_with("**FAIL I2"));
}
