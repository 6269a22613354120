//! A comparison as a table of text. `[pure]`

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};

use super::{
    row::{Reading, Unit, significant},
    verdict::{Judged, Ratio},
};

/// The whole table, and below it what each row has to add.
pub(crate) fn text(rows: &[Judged], subjects: [&str; 2]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let [a, b] = subjects;
    table.set_header(["", "less is better", &format!("a {a}"), &format!("b {b}"), "a ÷ b", "", "goal", ""]);
    for row in rows {
        let [a, b] = row.medians.map(|median| reading(median, row.row.unit));
        table.add_row(vec![
            Cell::new(row.row.id),
            Cell::new(row.row.title),
            Cell::new(a).set_alignment(CellAlignment::Right),
            Cell::new(b).set_alignment(CellAlignment::Right),
            Cell::new(against(row)),
            Cell::new(row.comparison.word()),
            Cell::new(goals(row)),
            Cell::new(row.goal().word()),
        ]);
    }
    let mut out = format!("{}\n", table.trim_fmt());
    for (row, note) in rows.iter().flat_map(|row| notes(row).into_iter().map(move |note| (row.row.id, note))) {
        out += &format!("{id}: {note}\n", id = row);
    }
    out
}

/// A figure with its unit; `≥` where the time was up before the end.
pub(crate) fn reading(reading: Option<Reading>, unit: Unit) -> String {
    match reading {
        Some(Reading::Is(value)) => unit.show(value),
        Some(Reading::AtLeast(value)) => format!("≥ {}", unit.show(value)),
        None => "–".into(),
    }
}

/// The ratio with its interval, or the two figures where one of them is nothing.
pub(crate) fn against(row: &Judged) -> String {
    match (row.ratio, row.medians) {
        (Some(ratio), _) => ratio_text(ratio),
        (None, [Some(a), Some(b)]) if a.value() <= 0.0 || b.value() <= 0.0 => {
            format!("{} against {}", reading(Some(a), row.row.unit), reading(Some(b), row.row.unit))
        }
        (None, _) => "–".into(),
    }
}

fn ratio_text(Ratio { covered, at_most, at_least }: Ratio) -> String {
    let interval = covered.interval;
    let sign = match (at_most, at_least) {
        (true, _) => "≤ ",
        (false, true) => "≥ ",
        (false, false) => "",
    };
    format!(
        "{sign}{} [{}, {}] {} %",
        significant(interval.estimate),
        significant(interval.lower),
        significant(interval.upper),
        significant(covered.coverage * 100.0)
    )
}

/// What is hoped of the first subject.
pub(crate) fn goals(row: &Judged) -> String {
    if row.goals.is_empty() {
        return "none".into();
    }
    row.goals.iter().map(|(goal, ..)| goal.show(row.row.unit)).collect::<Vec<_>>().join(" and ")
}

/// What the columns cannot hold: why something is unknown or not shown, why a goal is open, what was made smaller.
pub(crate) fn notes(row: &Judged) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(because) = &row.because {
        notes.push(format!("{}, because {because}", row.comparison.word()));
    }
    for (goal, state, because) in &row.goals {
        if let Some(because) = because {
            notes.push(format!("goal {} {}: {because}", goal.show(row.row.unit), state.word()));
        }
    }
    if let (Some(most), Some(state)) = (row.circumstances.allowed, row.allowed) {
        notes.push(format!("allowed ≤ {most} × b: {}", state.word()));
    }
    if let Some(shrunk) = &row.circumstances.shrunk {
        notes.push(format!("quick: {shrunk}"));
    }
    notes
}
