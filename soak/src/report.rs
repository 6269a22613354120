//! A verdict for its reader: words, one JSON object, a Markdown table. `[pure]`

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use crate::{
    judge::{
        Verdict,
        epochs::{exit_code, headline, title},
    },
    run_format::Record,
};

/// The reason first, then every invariant, then how to have it again.
pub(crate) fn text(directory: &Path, record: &Record, verdict: &Verdict) -> String {
    let info = &record.info;
    let mut out = format!("{}\n", headline(record, verdict));
    out += &format!(
        "{} {}, seed {}, {} nodes, {} + {} epochs of {} events  ({})\n",
        info.subject,
        info.scenario,
        info.seed,
        info.nodes,
        info.warm_up_epochs,
        info.epochs,
        info.events_per_epoch,
        directory.display()
    );
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for check in &verdict.checks {
        table.add_row([check.outcome.word(), check.name, title(check.name), &check.detail]);
    }
    out + &format!("{}\nreproduce: perennial-soak {}\n", table.trim_fmt(), info.argv.join(" "))
}

/// The object of `--json` and `verdict.json`.
pub(crate) fn object(record: &Record, verdict: &Verdict) -> serde_json::Value {
    let checks: Vec<_> = verdict
        .checks
        .iter()
        .map(|check| {
            let (id, sentence) = (check.name, &check.detail);
            serde_json::json!({"id": id, "title": title(id), "outcome": check.outcome, "sentence": sentence})
        })
        .collect();
    serde_json::json!({
        "v": 1,
        "scenario": record.info.scenario,
        "seed": record.info.seed,
        "subject": record.info.subject,
        "outcome": verdict.outcome,
        "exit": exit_code(record, verdict),
        "headline": headline(record, verdict),
        "checks": checks,
    })
}

/// For a pull request.
pub(crate) fn markdown(record: &Record, verdict: &Verdict) -> String {
    let info = &record.info;
    let mut out = format!("**{}**\n\n", headline(record, verdict));
    out += &format!("{} {}, seed {}, {} nodes\n\n", info.subject, info.scenario, info.seed, info.nodes);
    out += "| | about | | |\n|---|---|---|---|\n";
    for check in &verdict.checks {
        let detail = check.detail.replace('|', "\\|");
        out += &format!("| {} | {} | {} | {detail} |\n", check.name, title(check.name), check.outcome.word());
    }
    out
}
