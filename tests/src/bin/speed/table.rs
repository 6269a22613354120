//! Figures of one course as a table: medians of every subject, and ours against the others within pairs.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table as Grid, presets::NOTHING};
use perennial_soak::stats::{median, median_interval};

use crate::{course::Course, measure::Figure, swarm::Subject};

/// The level of an interval; five pairs reach 93.8 %.
const ALPHA: f64 = 0.07;

/// What has been measured of one course.
#[derive(Debug)]
pub(crate) struct Table {
    course: Course,
    taken: Vec<(u32, Subject, Vec<Figure>)>,
}

impl Table {
    pub(crate) fn new(course: Course) -> Self {
        Self { course, taken: Vec::new() }
    }

    pub(crate) fn add(&mut self, pair: u32, subject: Subject, figures: Vec<Figure>) {
        let words: Vec<String> = figures.iter().map(|one| format!("{} {}", one.name, show(one.value))).collect();
        eprintln!("{} {pair} {subject:5}: {}", self.course, words.join(", "));
        self.taken.push((pair, subject, figures));
    }

    /// Values of one figure, by pair.
    fn values(&self, subject: Subject, name: &str) -> Vec<(u32, f64)> {
        let of_subject = self.taken.iter().filter(|(_, one, _)| *one == subject);
        let named = of_subject
            .filter_map(|(pair, _, figures)| figures.iter().find(|one| one.name == name).map(|one| (*pair, one.value)));
        named.collect()
    }

    fn middle(&self, subject: Subject, name: &str) -> String {
        let values: Vec<f64> = self.values(subject, name).into_iter().map(|(_, value)| value).collect();
        median(&values).map_or("–".into(), show)
    }

    /// Ours divided by the other within pairs: the median, and its interval where there are pairs enough.
    fn against(&self, other: Subject, name: &str) -> String {
        let others = self.values(other, name);
        let ratio = |(pair, ours): (u32, f64)| {
            let (_, theirs) = others.iter().find(|(one, _)| *one == pair)?;
            (*theirs > 0.0).then_some(ours / theirs)
        };
        let ratios: Vec<f64> = self.values(Subject::Ours, name).into_iter().filter_map(ratio).collect();
        match (median(&ratios), median_interval(&ratios, ALPHA).filter(|_| ratios.len() >= 5)) {
            (Some(middle), Some(covered)) => {
                format!("{} [{}, {}]", show(middle), show(covered.interval.lower), show(covered.interval.upper))
            }
            (Some(middle), None) => show(middle),
            (None, _) => "–".into(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects = self.course.subjects();
        let mut grid = Grid::new();
        grid.load_preset(NOTHING);
        let mut header = vec![self.course.to_string()];
        header.extend(subjects.iter().map(ToString::to_string));
        header.extend(subjects.iter().skip(1).map(|other| format!("ours ÷ {other}")));
        grid.set_header(header);
        let first = self.taken.first().map(|(_, _, figures)| figures.as_slice()).unwrap_or_default();
        for Figure { name, unit, .. } in first {
            let mut row = vec![Cell::new(format!("{name}, {unit}"))];
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            row.extend(subjects.iter().map(|subject| right(self.middle(*subject, name))));
            row.extend(subjects.iter().skip(1).map(|other| Cell::new(self.against(*other, name))));
            grid.add_row(row);
        }
        writeln!(f, "{}", grid.trim_fmt())
    }
}

/// Three significant digits.
fn show(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
