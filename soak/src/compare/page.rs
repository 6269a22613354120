//! A comparison as a page for people: the verdict, the table, a plot for every claim, how to run it again. One file, no
//! script, light and dark. `[pure]`

use super::{
    Report, plot,
    row::Reading,
    table,
    verdict::{self, Comparison, Judged, State},
};
use crate::page::{STYLE, plot::escape};

/// The whole page. `argv` is what runs it again.
pub(crate) fn html(report: &Report, argv: &[String]) -> String {
    let headline = verdict::headline(&report.rows, report.machine.busy());
    let class = match verdict::exit_code(&report.rows) {
        0 => "pass",
        2 => "unknown",
        _ => "fail",
    };
    let names = [report.subjects[0].name.as_str(), report.subjects[1].name.as_str()];
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{a} against {b}</title>\n<style>\n{STYLE}{MORE_STYLE}</style></head><body>\n\
         <h1 class=\"{class}\">{}</h1>\n<p class=\"sub\">{}</p>\n",
        escape(&headline),
        escape(&subtitle(report)),
        a = escape(names[0]),
        b = escape(names[1]),
    );
    out += &format!(
        "<table><tr><th></th><th>less is better</th><th></th><th>a {}</th><th>b {}</th><th>a ÷ b</th><th>goal</th></tr>\n",
        escape(names[0]),
        escape(names[1])
    );
    out += &report.rows.iter().map(line).collect::<String>();
    out += "</table>\n<p class=\"sub\">Medians. a ÷ b is the median of the ratios within pairs, with the interval of the \
            sign test and the chance with which it covers the truth; a claim needs all of it on one side of 1.</p>\n";
    for row in report.rows.iter().filter(|row| is_claim(row)) {
        let caption =
            format!("{} is {}. Goal: {}; {}.", row.row.id, row.comparison.word(), table::goals(row), row.row.source);
        out += &format!("<figure>{}<figcaption>{}</figcaption></figure>\n", plot::svg(row, names), escape(&caption));
    }
    out + &format!("<p>Run it again: <code>perennial-soak {}</code></p>\n</body></html>\n", escape(&argv.join(" ")))
}

/// A row worth a picture of its own.
pub(crate) fn is_claim(row: &Judged) -> bool {
    match row.comparison {
        Comparison::Better | Comparison::Worse => true,
        Comparison::NotShown | Comparison::Unknown => false,
    }
}

/// A plot as a file of its own, with its style inside.
pub(crate) fn plot_alone(row: &Judged, names: [&str; 2]) -> String {
    plot::svg(row, names).replacen('>', &format!("><style>{STYLE}</style>"), 1)
}

const MORE_STYLE: &str =
    "td { font-variant-numeric: tabular-nums; } .met { color: var(--ok); } .not-met { color: var(--bad); }\n";

fn line(row: &Judged) -> String {
    let class = match row.comparison {
        Comparison::Better => "pass",
        Comparison::Worse => "fail",
        Comparison::NotShown => "quiet",
        Comparison::Unknown => "unknown",
    };
    let goal = match row.goal() {
        State::Met => "met",
        State::NotMet => "not-met",
        State::NotJudged => "sub",
    };
    let side = |reading: Option<Reading>| escape(&table::reading(reading, row.row.unit));
    let notes: String =
        table::notes(row).iter().map(|note| format!("<br><span class=\"sub\">{}</span>", escape(note))).collect();
    format!(
        "<tr class=\"{class}\"><td>{}</td><td>{}{notes}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{} <span class=\"{goal}\">{}</span></td></tr>\n",
        row.row.id,
        escape(row.row.title),
        row.comparison.word(),
        side(row.medians[0]),
        side(row.medians[1]),
        escape(&table::against(row)),
        escape(&table::goals(row)),
        row.goal().word()
    )
}

fn subtitle(report: &Report) -> String {
    let load = report.machine.load.map_or("unknown".into(), |load| format!("{load:.1}"));
    format!(
        "{} pairs · seed {} · {:.0} min · {} processors · kernel {} · load {load} before start{}",
        report.pairs,
        report.seed,
        report.took_s / 60.0,
        report.machine.cpus,
        report.machine.kernel,
        if report.quick { " · quick: smaller than the goals were set for" } else { "" }
    )
}
