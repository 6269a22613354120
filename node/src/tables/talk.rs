//! Topics, reloads and the doctor's findings, for people. `[pure]`

use super::{align_right, table, text};
use crate::{
    control::protocol::topics::TopicView,
    reload::ReloadReport,
    settings::difference::Change,
    verbs::doctor::findings::{Report, Verdict},
};

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// One row per joined topic.
pub(crate) fn topics(topics: &[TopicView]) -> String {
    if topics.is_empty() {
        return " no topic is joined; `perennial join TOPIC` joins one".into();
    }
    let mut rows = table(["topic", "neighbors", "contacts", "queued", "restarts"]);
    for topic in topics {
        rows.add_row([
            topic.name.clone().unwrap_or_else(|| topic.topic.clone()),
            topic.neighbors.len().to_string(),
            topic.contacts.to_string(),
            topic.queued_frames.to_string(),
            topic.restarts.to_string(),
        ]);
    }
    align_right(&mut rows, 1..5);
    text(&rows)
}

/// One row per setting that changed, and whether it took effect.
pub(crate) fn reloaded(report: &ReloadReport) -> String {
    let mut rows = table(["setting", "from", "to", ""]);
    let shown = |value: &serde_json::Value| match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut add = |changes: &[Change], note: &str| {
        for Change { name, from, to } in changes {
            rows.add_row([name.clone(), shown(from), shown(to), note.to_owned()]);
        }
    };
    add(&report.applied, "");
    add(&report.needs_restart, "needs a restart");
    text(&rows)
}

/// One line per finding, what would mend it below, and the sum. `has_colour`: for a terminal.
pub(crate) fn findings(report: &Report, has_colour: bool) -> String {
    let paint = |code: &str, word: &str| match has_colour {
        true => format!("\x1b[{code}m{word:<5}\x1b[0m"),
        false => format!("{word:<5}"),
    };
    let width = report.checks.iter().map(|one| one.check.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for one in &report.checks {
        let mark = match one.verdict {
            Verdict::Ok => paint(GREEN, "ok"),
            Verdict::Warn => paint(YELLOW, "warn"),
            Verdict::Fail => paint(RED, "FAIL"),
        };
        lines.push(format!(" {mark} {:<width$}  {}", one.check, one.finding));
        lines.extend(one.cure.iter().map(|cure| format!("       {:<width$}  {cure}", "")));
    }
    let sum = match (report.failed, report.warned) {
        (0, 0) => "all is well".to_owned(),
        (0, warned) => format!("nothing failed, {warned} warned"),
        (failed, warned) => format!("{failed} failed, {warned} warned"),
    };
    format!("{}\n\n {sum}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::verbs::doctor::findings::{Finding, fine, warning};

    /// Every line of a table begins with a space, which `expect!` takes for indentation.
    fn unindented(table: &str) -> String {
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn topics_are_a_row_each() {
        let named = |name: Option<&str>| TopicView {
            topic: "07".repeat(32),
            name: name.map(str::to_owned),
            neighbors: vec!["9f2c58ff".into(); 3],
            contacts: 5,
            queued_frames: 0,
            restarts: 1,
        };
        expect![[r#"
             topic                                                             neighbors  contacts  queued  restarts
             chat                                                                      3         5       0         1
             0707070707070707070707070707070707070707070707070707070707070707          3         5       0         1"#]]
        .assert_eq(&unindented(&topics(&[named(Some("chat")), named(None)])));
        assert_eq!(topics(&[]), " no topic is joined; `perennial join TOPIC` joins one");
    }

    #[test]
    fn a_reload_tells_what_took_effect_and_what_did_not() {
        let change = |name: &str, from, to| Change { name: name.into(), from, to };
        let answer = json!({
            "v": 1,
            "applied": [change("max_connections", json!(128), json!(64)), change("deny", json!(null), json!(["ae58ff"]))],
            "needs_restart": [change("listen", json!("127.0.0.1"), json!("0.0.0.0"))],
        });
        expect![[r#"
             setting          from       to
             max_connections  128        64
             deny             -          ["ae58ff"]
             listen           127.0.0.1  0.0.0.0     needs a restart"#]]
        .assert_eq(&unindented(&reloaded(&serde_json::from_value(answer).unwrap())));
    }

    #[test]
    fn findings_stand_in_columns_with_their_cures_below() {
        let failed = Finding {
            check: "key",
            verdict: Verdict::Fail,
            finding: "key file k has mode 0644, so others may use the key".into(),
            cure: Some("run: chmod 600 k".into()),
        };
        let report = Report::new(vec![failed, fine("clock", "plausible"), warning("udp buffers", "208 KiB", "more")]);
        expect![[r#"
             FAIL  key          key file k has mode 0644, so others may use the key
                                run: chmod 600 k
             ok    clock        plausible
             warn  udp buffers  208 KiB
                                more

             1 failed, 1 warned"#]]
        .assert_eq(&unindented(&findings(&report, false)));
        assert_eq!(findings(&report, true).matches("\x1b[0m").count(), 3);
        let well = Report::new(vec![fine("clock", "plausible")]);
        assert!(findings(&well, false).ends_with("\n\n all is well"));
    }
}
