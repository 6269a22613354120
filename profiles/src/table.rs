//! Tables for people. Bytes as they read best, everything numeric to the right.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::{
    baseline::Baseline,
    buckets::Buckets,
    budgets::{Amount, Budgets, Verdict},
    difference::{Growth, line},
    ladder::Climber,
};

/// One figure with what its budget says.
pub(crate) struct FigureRow {
    pub(crate) name: &'static str,
    pub(crate) amount: Amount,
    /// `None`: not judged.
    pub(crate) verdict: Option<Verdict>,
}

/// Figures beside their budgets.
pub(crate) fn figures(rows: &[FigureRow], budgets: &Budgets) -> String {
    let mut table = table(["figure", "bytes", "blocks", "budget", ""], &[1, 2, 3]);
    for FigureRow { name, amount, verdict } in rows {
        let budget = budgets.of(name).map(|budget| format!("{}, {}", size(budget.bytes as f64), count(budget.blocks)));
        let verdict = match verdict {
            None => "not judged".to_owned(),
            Some(Verdict::Within) => "ok".to_owned(),
            Some(Verdict::Over) => "OVER".to_owned(),
            Some(Verdict::Loose(to)) => format!("LOOSE: tighten to {:.0} bytes, {:.0} blocks", to.bytes, to.blocks),
            Some(Verdict::Unknown) => "NO BUDGET: bless it".to_owned(),
        };
        table.add_row([
            (*name).to_owned(),
            size(amount.bytes),
            count(amount.blocks),
            budget.unwrap_or_default(),
            verdict,
        ]);
    }
    table.trim_fmt()
}

/// A heap beside the bytes each bucket had before, if it is known, and divided by `per`.
pub(crate) fn buckets(now: &Buckets, before: &dyn Fn(&str) -> Option<u64>, per: usize) -> String {
    let mut table = table(["bucket", "before", "bytes", "difference", "blocks", "share"], &[1, 2, 3, 4, 5]);
    let per = per as f64;
    let total = now.total();
    let (mut total_before, mut is_known) = (0, false);
    for (name, now) in &now.sizes {
        let before = before(name);
        total_before += before.unwrap_or_default();
        is_known |= before.is_some();
        let share = now.bytes as f64 * 100.0 / total.bytes.max(1) as f64;
        table.add_row(row(name, before, now.bytes, now.blocks, per, share));
    }
    let before = is_known.then_some(total_before);
    table.add_row(row("total", before, total.bytes, total.blocks, per, 100.0));
    table.trim_fmt()
}

fn row(name: &str, before: Option<u64>, now: u64, blocks: u64, per: f64, share: f64) -> [String; 6] {
    let difference = before.map(|before| signed(now as f64 / per - before as f64 / per));
    [
        name.to_owned(),
        before.map(|before| size(before as f64 / per)).unwrap_or_default(),
        size(now as f64 / per),
        difference.unwrap_or_default(),
        count(blocks as f64 / per),
        format!("{share:.1} %"),
    ]
}

/// The bytes of the buckets of one checkpoint as the baseline has them.
pub(crate) fn beside<'a>(baseline: &'a Baseline, checkpoint: &'a str) -> impl Fn(&str) -> Option<u64> + 'a {
    move |bucket| baseline.of(checkpoint, bucket).map(|size| size.bytes)
}

/// Call sites that grew, each in one line.
pub(crate) fn growths<'a>(growths: impl Iterator<Item = &'a Growth>, per: usize) -> String {
    let per = per as f64;
    let line = |growth: &Growth| {
        let Growth { frames, bucket, bytes, blocks } = growth;
        let (bytes, blocks) = (signed(*bytes as f64 / per), count(*blocks as f64 / per));
        format!("  {bytes:>10}  {blocks:>6} blocks  {bucket}: {}", line(frames, FRAMES_SHOWN))
    };
    growths.map(line).collect::<Vec<_>>().join("\n")
}

/// Call sites that leak, each with its slope.
pub(crate) fn climbers(climbers: &[Climber]) -> String {
    let line = |climber: &Climber| {
        let Climber { site, bytes_per_trip, blocks_per_trip } = climber;
        let live = size(site.size.bytes as f64);
        let line = line(&site.frames, FRAMES_SHOWN);
        format!("  {bytes_per_trip:+.1} bytes  {blocks_per_trip:+.2} blocks a round trip, {live} at the end: {line}")
    };
    climbers.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Enough to see who wanted the memory and on whose behalf.
const FRAMES_SHOWN: usize = 5;

fn table<const N: usize>(head: [&str; N], numeric: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(head);
    for column in numeric {
        let column = table.column_mut(*column).expect("the table has such a column");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `61.2 KB`, in thousands.
fn size(bytes: f64) -> String {
    match bytes.abs() {
        small if small < 10_000.0 => format!("{bytes:.0} B"),
        middle if middle < 1_000_000.0 => format!("{:.1} KB", bytes / 1e3),
        _ => format!("{:.2} MB", bytes / 1e6),
    }
}

fn signed(bytes: f64) -> String {
    if bytes > 0.0 { format!("+{}", size(bytes)) } else { size(bytes) }
}

fn count(blocks: f64) -> String {
    if blocks.fract() == 0.0 { format!("{blocks:.0}") } else { format!("{blocks:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buckets::Rules, heap};

    #[test]
    fn a_heap_beside_another_shows_what_moved() {
        let json =
            r#"{"mode": "rust-heap", "ftbl": ["0x1: noq::a"], "pps": [{"eb": 61200, "ebk": 4, "tbk": 4, "fs": [0]}]}"#;
        let now = Rules::built_in().sort(&heap::parse(json).unwrap());
        let text = buckets(&now, &|name| (name == "quic-conn").then_some(60_000), 2);
        let row = text.lines().find(|line| line.trim_start().starts_with("quic-conn")).unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["quic-conn", "30.0 KB", "30.6 KB", "+600 B", "2", "100.0 %"]);
        assert!(text.lines().last().unwrap().trim_start().starts_with("total"), "{text}");
    }

    #[test]
    fn a_verdict_is_a_word_and_what_to_do() {
        let budgets = Budgets { build: "dev".into(), budget: Vec::new() };
        let amount = Amount { bytes: 1_234_567.0, blocks: 2.5 };
        let row = |verdict| FigureRow { name: "fixed", amount, verdict: Some(verdict) };
        let text = figures(&[row(Verdict::Over), row(Verdict::Loose(amount)), row(Verdict::Unknown)], &budgets);
        assert!(text.contains("1.23 MB") && text.contains("2.50") && text.contains("OVER"), "{text}");
        assert!(text.contains("LOOSE: tighten to 1234567 bytes, 2 blocks") && text.contains("NO BUDGET"), "{text}");
    }
}
