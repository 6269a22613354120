//! One run as a page for people: the verdict, four plots, every invariant, how to run it again. One file, no script, light
//! and dark. `[pure]`
//!
//! Drawing is `page/plot.rs`; this file chooses what is drawn.

pub(crate) mod plot;

use crate::{
    judge::{
        Outcome, Verdict,
        case::{Case, ordinary},
        epochs::{headline, title},
        flatness::{ALPHA, flatness},
        memory::heap_points,
    },
    run_format::{Barrier, Happened, Record},
};
use plot::{Line, Plot, escape};

pub(crate) const STYLE: &str = include_str!("page/style.css");

/// The whole page.
pub(crate) fn html(record: &Record, verdict: &Verdict) -> String {
    let info = &record.info;
    let class = verdict.outcome.word();
    let subtitle = format!(
        "{} · {} · seed {} · {} nodes · {} + {} epochs of {} events",
        info.subject, info.scenario, info.seed, info.nodes, info.warm_up_epochs, info.epochs, info.events_per_epoch
    );
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{} {}: {class}</title>\n<style>\n{STYLE}</style></head><body>\n\
         <h1 class=\"{class}\">{}</h1>\n<p class=\"sub\">{}</p>\n",
        escape(&info.subject),
        escape(&info.scenario),
        escape(&headline(record, verdict)),
        escape(&subtitle),
    );
    for (caption, svg) in [
        (
            "Live heap of the observer at drained barriers, connections to peers discounted. The band is where the slope may lie \
          (Theil–Sen, exact 99 % bounds); the dashed line is the budget. The axis starts at zero.",
            heap_plot(record),
        ),
        ("Tasks and connections of the observer, beside the peers that should hold them.", counts_plot(record)),
        (
            "Resident memory of the observer. An allocator keeps what it once had, so this is shown and not judged.",
            rss_plot(record),
        ),
        ("Delivery of the probes: the median and the slowest of each epoch, in milliseconds.", delivery_plot(record)),
    ] {
        out += &format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>\n");
    }
    out += "<table><tr><th></th><th>about</th><th></th><th>found</th></tr>\n";
    for check in &verdict.checks {
        let class = match check.outcome {
            Outcome::NotJudged => "quiet",
            Outcome::Pass | Outcome::Fail | Outcome::Unknown => check.outcome.word(),
        };
        out += &format!(
            "<tr class=\"{class}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            check.name,
            title(check.name),
            check.outcome.word(),
            escape(&check.detail)
        );
    }
    out += &format!("</table>\n<p>Run it again: <code>perennial-soak {}</code></p>\n", escape(&info.argv.join(" ")));
    out += "<p class=\"sub\">";
    out += &info
        .machine
        .iter()
        .map(|(what, value)| format!("{} {}", escape(what), escape(value)))
        .collect::<Vec<_>>()
        .join(" · ");
    out + "</p></body></html>\n"
}

/// The heap plot as a file of its own, with its style inside.
pub(crate) fn heap_alone(record: &Record) -> String {
    alone(&heap_plot(record))
}

/// The heap of two observers in one plot, nothing discounted: what each run was worth, at a look.
pub(crate) fn heaps(record: &Record, other: &Record) -> String {
    const MB: f64 = 1e6;
    let of = |record| series(&observer(record), MB, |row: &Barrier| row.heap_bytes);
    let mut plot = base(record, "MB", "heap of the observer at drained barriers");
    plot.x_max = of(other).iter().chain(&of(record)).map(|point| point.0).fold(plot.x_max, f64::max);
    plot.lines.push(Line { name: "perennial", class: "a", points: of(record), dots: true });
    plot.lines.push(Line { name: "the other", class: "b", points: of(other), dots: true });
    alone(&plot.svg())
}

/// Every plot as a file of its own, with its name.
pub(crate) fn plots(record: &Record) -> [(&'static str, String); 4] {
    [
        ("heap", heap_plot(record)),
        ("counts", counts_plot(record)),
        ("rss", rss_plot(record)),
        ("delivery", delivery_plot(record)),
    ]
    .map(|(name, svg)| (name, alone(&svg)))
}

fn alone(svg: &str) -> String {
    svg.replacen('>', &format!("><style>{STYLE}</style>"), 1)
}

fn observer(record: &Record) -> Vec<&Barrier> {
    let mut rows: Vec<_> = record.barriers.iter().filter(|row| row.node == record.info.observer).collect();
    rows.sort_by_key(|row| row.epoch);
    rows
}

fn series(rows: &[&Barrier], scale: f64, figure: impl Fn(&Barrier) -> Option<u64>) -> Vec<(f64, f64)> {
    rows.iter().filter_map(|row| Some((row.events as f64, figure(row)? as f64 / scale))).collect()
}

fn heap_plot(record: &Record) -> String {
    const MB: f64 = 1e6;
    let rows = observer(record);
    let scaled = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (x, y / MB)).collect::<Vec<_>>();
    let case = Case::new(record);
    let judged = heap_points(&case, &ordinary(case.observer()));
    let budget = record.info.thresholds.heap_bytes_per_event;
    let flat = flatness(&judged, budget, ALPHA);
    let mut plot = base(record, "MB", "heap");
    let looks = record.looks.iter().flatten().filter(|look| look.node == record.info.observer);
    let raw: Vec<_> = looks.filter_map(|look| Some((look.events as f64, look.heap_bytes? as f64 / MB))).collect();
    plot.lines.push(Line { name: "raw", class: "raw", points: raw, dots: false });
    plot.lines.push(Line { name: "at barriers", class: "a", points: scaled(heap_points(&case, &rows)), dots: true });
    if let (Some(slope), Some((x0, _)), Some((x1, _))) = (flat.slope, judged.first(), judged.last()) {
        let middle = |index: usize| {
            let values: Vec<f64> = judged.iter().map(|point| if index == 0 { point.0 } else { point.1 }).collect();
            perennial_soak::stats::median(&values).unwrap_or(0.0)
        };
        let (x, y) = (middle(0), middle(1));
        let at = |slope: f64, to: f64| (y + slope * (to - x)) / MB;
        // Two fans from the middle of the data: the line may turn about it between its bounds.
        let corners = [(slope.lower, *x0), (slope.upper, *x0), (slope.lower, *x1), (slope.upper, *x1)];
        plot.band = [corners[0], corners[2], corners[3], corners[1]].map(|(slope, to)| (to, at(slope, to))).to_vec();
        let line = |slope| vec![(*x0, at(slope, *x0)), (*x1, at(slope, *x1))];
        plot.lines.push(Line { name: "slope", class: "b", points: line(slope.estimate), dots: false });
        plot.lines.push(Line { name: "budget", class: "budget", points: line(budget), dots: false });
    }
    plot.svg()
}

fn counts_plot(record: &Record) -> String {
    let rows = observer(record);
    let mut plot = base(record, "", "tasks and connections");
    type Figure = fn(&Barrier) -> Option<u64>;
    let figures: [(&'static str, &'static str, Figure); 3] = [
        ("tasks", "a", |row| row.tasks),
        ("connections", "b", |row| row.connections),
        ("peers", "c", |row| row.peers.or(row.neighbors)),
    ];
    for (name, class, figure) in figures {
        plot.lines.push(Line { name, class, points: series(&rows, 1.0, figure), dots: true });
    }
    plot.svg()
}

fn rss_plot(record: &Record) -> String {
    let mut plot = base(record, "MB", "resident memory");
    let points = series(&observer(record), 1e6, |row| row.rss_bytes);
    plot.lines.push(Line { name: "rss", class: "a", points, dots: true });
    plot.svg()
}

fn delivery_plot(record: &Record) -> String {
    let rows = observer(record);
    let mut plot = base(record, "ms", "delivery");
    let points = |figure: fn(&Barrier) -> Option<f64>| {
        rows.iter().filter_map(|row| Some((row.events as f64, figure(row)?))).collect::<Vec<_>>()
    };
    plot.lines.push(Line { name: "median", class: "a", points: points(|row| row.latency_p50_ms), dots: true });
    plot.lines.push(Line { name: "p99", class: "raw", points: points(|row| row.latency_p99_ms), dots: true });
    plot.lines.push(Line { name: "slowest", class: "b", points: points(|row| row.latency_max_ms), dots: true });
    plot.svg()
}

/// A plot over the events of the run, its warm-up shaded. Underneath a tick for every event that hit a neighbour of the
/// observer; across it a line where a message was missed or a node did wrong.
fn base(record: &Record, unit: &'static str, title: &'static str) -> Plot {
    let info = &record.info;
    let each = u64::from(info.events_per_epoch);
    let last = record.barriers.iter().map(|row| row.events).max().unwrap_or(each);
    let (mut rug, mut bad, mut done) = (Vec::new(), Vec::new(), 0.0);
    let steps = || record.plan.iter().filter(|planned| planned.step.is_event());
    let mut weights = steps().map(|planned| planned.step.weight());
    for event in record.events.iter().flatten() {
        match event.happened {
            Happened::Injected { touching, .. } => {
                // Events are recorded in the order of the plan; a run without one is of events that count once.
                done += weights.next().unwrap_or(1) as f64;
                rug.extend(touching.then_some(done));
            }
            Happened::Exited { .. } | Happened::Fault { .. } => bad.push(done),
            Happened::Observed { .. } => {}
        }
    }
    let missed = observer(record).into_iter().filter(|row| row.missed.is_some_and(|missed| missed > 0));
    bad.extend(missed.map(|row| row.events as f64));
    let minutes = record.barriers.iter().map(|row| row.at_ms).max().unwrap_or(0) as f64 / 60e3;
    let warm_up = match steps().next() {
        Some(_) => {
            let of_warm_up = steps().filter(|planned| planned.epoch <= info.warm_up_epochs);
            of_warm_up.map(|planned| planned.step.weight()).sum()
        }
        None => u64::from(info.warm_up_epochs) * each,
    };
    Plot {
        title,
        unit,
        x_max: last as f64,
        warm_up: warm_up as f64,
        minutes,
        rug,
        bad,
        lines: Vec::new(),
        band: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::epochs::judge;

    #[test]
    fn a_page_is_one_file_without_scripts_and_every_text_is_escaped() {
        let mut record = crate::selftest::record("leak-heap");
        record.info.subject = "<b>&".into();
        let page = html(&record, &judge(&record));
        assert!(page.contains("FAIL I7: heap +"), "the reason comes first");
        assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>&"), "names are escaped");
        assert!(!page.contains("<script") && !page.contains("href="), "one file, nothing to fetch");
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("<tr class").count(), crate::judge::epochs::INVARIANTS.len());
        assert!(!page.contains("NaN") && !page.contains("inf"), "figures that are none are not drawn");
    }

    #[test]
    fn an_empty_run_still_draws() {
        let mut record = crate::selftest::record("none");
        record.barriers.clear();
        record.looks = None;
        let page = html(&record, &judge(&record));
        assert!(page.contains("UNKNOWN") && !page.contains("NaN"));
    }
}
