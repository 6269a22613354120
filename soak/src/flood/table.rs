//! The tables: ours, stock and their ratio for every flood, and what stays of those who came and went. `[pure]`

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::{evidence::Evidence, rounds::Round, victim::Software};

/// A figure of a flood: its name, how to read it, how to write it.
type Row = (&'static str, fn(&Evidence) -> Option<f64>, Unit);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Mega,
    Count,
    Millis,
    Ratio,
}

const ROWS: &[Row] = &[
    ("attempts", |flood| Some(flood.attacker.tally.attempted as f64), Unit::Count),
    ("… handshakes finished", |flood| Some(flood.attacker.tally.finished as f64), Unit::Count),
    ("… refused", |flood| Some(flood.attacker.tally.refused as f64), Unit::Count),
    ("… not answered in time", |flood| Some(flood.attacker.tally.timed_out as f64), Unit::Count),
    ("… dropped or silent in the middle", |flood| Some(middle(flood)), Unit::Count),
    ("… open at the end", |flood| Some(flood.attacker.held_to_the_end as f64), Unit::Count),
    ("… took ms", |flood| Some(flood.attacker.took_ms), Unit::Millis),
    ("datagrams lost by the kernel", |flood| flood.dropped_datagrams, Unit::Count),
    ("heap growth at the peak, MB", |flood| flood.heap.growth(), Unit::Mega),
    ("heap left after 10 s, MB", |flood| Some(flood.heap.left()? - flood.heap_drift.unwrap_or(0.0)), Unit::Mega),
    (
        "heap left at the end, MB",
        |flood| Some(flood.heap.left_at_last()? - flood.heap_drift_at_last.unwrap_or(0.0)),
        Unit::Mega,
    ),
    ("resident growth at the peak, MB", |flood| flood.rss.growth(), Unit::Mega),
    ("tasks at the peak", |flood| flood.tasks.peak, Unit::Count),
    ("tasks left after 10 s", |flood| flood.tasks.left(), Unit::Count),
    ("tasks left at the end", |flood| flood.tasks.left_at_last(), Unit::Count),
    ("connections, high water", |flood| flood.connections_high_water, Unit::Count),
    ("half-open at the peak", |flood| flood.half_open_peak, Unit::Count),
    ("probes unanswered", |flood| Some((flood.flood.unanswered + flood.after.unanswered) as f64), Unit::Count),
    ("probe p50 before, ms", |flood| flood.before.p50_ms, Unit::Millis),
    ("probe p99 before, ms", |flood| flood.before.p99_ms, Unit::Millis),
    ("probe p50 while attempts are made, ms", |flood| flood.during.p50_ms, Unit::Millis),
    ("probe p99 until the end of the hold, ms", |flood| flood.flood.p99_ms, Unit::Millis),
    ("probe slowest, ms", |flood| flood.flood.max_ms, Unit::Millis),
    ("probe p99 after, ms", |flood| flood.after.p99_ms, Unit::Millis),
    ("known peer joined among them in ms", |flood| flood.known_ms, Unit::Millis),
    ("newcomer joined in ms", |flood| flood.newcomer_ms, Unit::Millis),
    ("processor of the victim, ms", |flood| flood.victim_cpu_ms, Unit::Millis),
    ("… ÷ processor of the attacker", |flood| Some(flood.victim_cpu_ms? / flood.attacker.cpu_ms), Unit::Ratio),
];

fn middle(flood: &Evidence) -> f64 {
    (flood.attacker.tally.abandoned + flood.attacker.tally.silent) as f64
}

/// One table for all floods, each against every software it was run with.
pub(crate) fn floods(floods: &[Evidence]) -> String {
    let mut by_attack: Vec<(String, BTreeMap<Software, &Evidence>)> = Vec::new();
    for flood in floods {
        let title = title(flood);
        match by_attack.iter_mut().find(|(known, _)| *known == title) {
            Some((_, subjects)) => _ = subjects.insert(flood.subject, flood),
            None => by_attack.push((title, BTreeMap::from([(flood.subject, flood)]))),
        }
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["flood", "ours", "stock", "ours ÷ stock"]);
    for (title, subjects) in &by_attack {
        table.add_row([title.as_str(), "", "", ""]);
        for (name, figure, unit) in ROWS {
            let of = |subject| subjects.get(&subject).and_then(|flood| figure(flood));
            let (ours, stock) = (of(Software::Ours), of(Software::Stock));
            let ratio = ours.zip(stock).filter(|_| *unit != Unit::Count || *name == "tasks at the peak");
            let ratio = ratio.map_or(String::new(), |(ours, stock)| ratio_text(ours, stock));
            table.add_row([format!("  {name}"), cell(ours, *unit), cell(stock, *unit), ratio]);
        }
    }
    aligned(table)
}

/// One line per round.
pub(crate) fn rounds(rounds: &[Round]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["came and went", "ours", "stock", "bare iroh"]);
    let numbers: std::collections::BTreeSet<usize> = rounds.iter().map(|round| round.number).collect();
    let mut add = |name: String, number: usize, figure: fn(&Round) -> Option<f64>| {
        let of = |subject| rounds.iter().find(|round| round.number == number && round.subject == subject);
        let cell = |subject| of(subject).map_or(String::new(), |round| cell(figure(round), Unit::Count));
        table.add_row([name, cell(Software::Ours), cell(Software::Stock), cell(Software::Bare)]);
    };
    for number in numbers {
        add(format!("round {number}: heap left per identity, B"), number, |round| round.left_per_identity);
        add(format!("round {number}: handshakes finished"), number, |round| Some(round.tally.finished as f64));
        add(format!("round {number}: tasks left"), number, |round| round.tasks_left);
    }
    aligned(table)
}

/// `idle 2000`.
pub(crate) fn title(flood: &Evidence) -> String {
    match flood.kind {
        Some(kind) => format!("{} {}", kind.name(), flood.count),
        None => "quiet".into(),
    }
}

fn aligned(mut table: Table) -> String {
    for column in 1..=3 {
        let column = table.column_mut(column).expect("the table has four columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn cell(figure: Option<f64>, unit: Unit) -> String {
    match (figure, unit) {
        (None, _) => "unknown".into(),
        (Some(figure), _) if !figure.is_finite() => String::new(),
        (Some(figure), Unit::Mega) => format!("{:.2}", figure / 1e6),
        (Some(figure), Unit::Count) => format!("{figure:.0}"),
        (Some(figure), Unit::Millis) => format!("{figure:.1}"),
        (Some(figure), Unit::Ratio) => format!("{figure:.2}"),
    }
}

fn ratio_text(ours: f64, stock: f64) -> String {
    let ratio = ours / stock;
    // A ratio of two nothings, or with a sign, says nothing.
    if ours <= 0.0 || stock <= 0.0 || !ratio.is_finite() { "–".into() } else { format!("{ratio:.3}") }
}

#[cfg(test)]
mod tests {
    use perennial_soak::attack::{Kind, Tally};

    use super::{
        super::{
            evidence::{Attacker, Record, Times, evidence},
            samples::Sample,
        },
        *,
    };

    fn flood(subject: Software, peak: f64) -> Evidence {
        let times = Times { before_s: 1.0, attack_s: 4.0, made_s: 5.0, end_s: 5.0, hold_end_s: 9.0, last_s: 20.0 };
        let sample = |tick: usize| {
            let at_s = tick as f64 / 10.0;
            let heap_bytes = Some(if (4.0..6.0).contains(&at_s) { peak } else { 1e6 });
            Sample { at_s, heap_bytes, ..Sample::default() }
        };
        let attacker = Attacker { tally: Tally { attempted: 500, ..Tally::default() }, ..Attacker::default() };
        let samples = (0..200).map(sample).collect();
        let record = Record { times, attacker, samples, ..Record::default() };
        evidence((Some(Kind::Idle), 500, subject), record, None)
    }

    #[test]
    fn both_columns_and_their_ratio_stand_in_one_row() {
        let table = floods(&[flood(Software::Stock, 101e6), flood(Software::Ours, 2e6)]);
        let row = |name: &str| {
            let line = table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in {table}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(table.contains("idle 500"), "{table}");
        assert_eq!(row("heap growth at the peak")[6..], ["1.00", "100.00", "0.010"]);
        assert_eq!(row("attempts")[1..], ["500", "500"], "a ratio of counts says nothing");
        assert_eq!(row("newcomer joined")[4..], ["unknown", "unknown"], "what was not measured is not zero");
    }

    #[test]
    fn a_ratio_of_nothings_is_none() {
        assert_eq!(ratio_text(0.0, 0.0), "–");
        assert_eq!(ratio_text(-1.0, 5.0), "–");
        assert_eq!(ratio_text(1.0, 4.0), "0.250");
    }

    #[test]
    fn rounds_show_every_software() {
        let round = |subject, left| Round {
            subject,
            number: 1,
            tally: Tally { attempted: 10, finished: 10, ..Tally::default() },
            left_per_identity: Some(left),
            tasks_left: None,
        };
        let table = rounds(&[round(Software::Ours, 90.0), round(Software::Stock, 4300.0), round(Software::Bare, 26.0)]);
        let line = table.lines().find(|line| line.contains("heap left per identity")).unwrap();
        let figures: Vec<&str> = line.split_whitespace().rev().take(3).collect();
        assert_eq!(figures, ["26", "4300", "90"]);
    }
}
