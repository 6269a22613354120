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
        // That the quick run was too small for it is said once, below.
        let is_too_small = row.circumstances.shrunk.is_some() && !goal.is_exact();
        if let Some(because) = because.as_ref().filter(|_| !is_too_small) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            row::{Goal, Kind, Row},
            verdict::{Circumstances, Pair, judge},
        },
        *,
    };

    const ROW: Row = Row {
        id: "P2",
        title: "heap left per rotation",
        unit: Unit::Bytes,
        kind: Kind::Size,
        goals: &[Goal::AtMost(512.0), Goal::Ratio(0.004)],
        source: "made up",
    };

    fn told(a: f64, b: Reading) -> Pair {
        [Ok(Reading::Is(a)), Ok(b)]
    }

    #[test]
    fn a_row_says_figures_ratio_claim_and_goal() {
        let judged = judge(&ROW, vec![told(280.0, Reading::Is(140e3)); 5], Circumstances::default());
        let text = text(&[judged], ["ours", "stock"]);
        let line = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            line,
            "P2 heap left per rotation 280 B 140.0 KB 0.0020 [0.0020, 0.0020] 93.8 % better ≤ 512 B and ≤ 0.004 × b met"
        );
        assert!(text.starts_with("     less is better") && text.contains("b stock"), "{text}");
    }

    #[test]
    fn nothing_on_one_side_is_printed_as_such() {
        let judged = judge(&ROW, vec![told(0.0, Reading::Is(140e3)); 5], Circumstances::default());
        assert_eq!(against(&judged), "0 B against 140.0 KB");
        let judged = judge(&ROW, vec![told(0.0, Reading::AtLeast(20.0)); 5], Circumstances::default());
        assert_eq!(against(&judged), "0 B against ≥ 20 B");
    }

    #[test]
    fn an_open_end_shows_in_figure_and_ratio() {
        let judged = judge(&ROW, vec![told(1e3, Reading::AtLeast(2e3)); 5], Circumstances::default());
        assert_eq!(against(&judged), "≤ 0.50 [0.50, 0.50] 93.8 %");
        assert_eq!(reading(judged.medians[1], Unit::Bytes), "≥ 2.0 KB");
    }

    #[test]
    fn what_is_missing_is_a_dash_and_a_reason() {
        let pairs = vec![[Err("it tells no heap_bytes".into()), Ok(Reading::Is(1.0))]];
        let circumstances = Circumstances { shrunk: Some("20 instead of 300".into()), ..Circumstances::default() };
        let text = text(&[judge(&ROW, pairs, circumstances)], ["ours", "stock"]);
        assert!(text.contains(" –      1 B  –      unknown"), "{text}");
        assert!(text.contains("P2: unknown, because a in pair 1: it tells no heap_bytes\n"), "{text}");
        assert!(text.contains("P2: quick: 20 instead of 300\n"), "{text}");
    }
}
