//! Which measurement runs when, and the clock over each.
//!
//! Times come first and alone, pair by pair in the order A B B A, while what was known of the machine's load still holds.
//! What only counts or weighs mostly waits, and waits side by side: there both subjects of a pair run at the same time, so
//! that whatever else the machine does falls on both.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use n0_future::{BufferedStreamExt, StreamExt, stream};

use super::{
    Measurement, files,
    options::Options,
    row::Kind,
    rows::Course,
    table,
    world::{Figures, Subject, World},
};

/// A course that takes so many times as long as it should is given up.
const TIME_FACTOR: u64 = 4;

/// And so much longer, because starting processes takes its time on a busy machine.
const TIME_SLACK_S: u64 = 120;

/// Everything that is to be measured, and what has been.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    options: &'a Options,
    subjects: &'a [Subject; 2],
    seed: u64,
    courses: &'a [Course],
    progress: ProgressBar,
    measurements: RefCell<Vec<Measurement>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(options: &'a Options, subjects: &'a [Subject; 2], seed: u64, courses: &'a [Course]) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {msg}  {elapsed}, about {eta} left");
        let style = style.expect("the template is valid").progress_chars("=> ");
        let total = courses.iter().map(|course| usual_s(*course, options)).sum::<u64>() * u64::from(options.pairs);
        let progress = ProgressBar::new(total).with_style(style);
        progress.enable_steady_tick(Duration::from_secs(1));
        Self { options, subjects, seed, courses, progress, measurements: RefCell::default() }
    }

    /// Measures everything. What a subject does wrong is in its measurement; only the harness itself can fail.
    pub(super) async fn measure(self) -> Result<Vec<Measurement>> {
        for pair in 1..=self.pairs() {
            for course in self.courses.iter().filter(|course| needs_quiet(**course, self.options)) {
                for (place, side) in order(pair).into_iter().enumerate() {
                    let words = format!("pair {pair}: {}, {}", course.about().name, self.subjects[side].name);
                    self.progress.set_message(words);
                    self.one(*course, pair, side, place == 0).await?;
                }
                self.progress.inc(usual_s(*course, self.options));
            }
        }
        let patient = || self.courses.iter().filter(|course| !needs_quiet(**course, self.options));
        let turns = (1..=self.pairs()).flat_map(|pair| patient().map(move |course| (pair, *course)));
        let turns = stream::iter(turns).map(|(pair, course)| Box::pin(self.both(course, pair)));
        let mut measured = turns.buffered_unordered(usize::from(self.options.parallel));
        while let Some(done) = measured.next().await {
            done?;
        }
        drop(measured);
        self.progress.finish_and_clear();
        let mut measurements = self.measurements.into_inner();
        measurements.sort_by_key(|one| one.pair);
        Ok(measurements)
    }

    /// Both subjects at the same time.
    async fn both(&self, course: Course, pair: usize) -> Result<()> {
        self.progress.set_message(format!("side by side, pair {pair}: {}", course.about().name));
        let (a, b) = tokio::join!(self.one(course, pair, 0, false), self.one(course, pair, 1, false));
        self.progress.inc(usual_s(course, self.options));
        a.and(b)
    }

    /// One course of one subject.
    async fn one(&self, course: Course, pair: usize, side: usize, first: bool) -> Result<()> {
        let subject = &self.subjects[side];
        let since = Instant::now();
        // What both sides of a pair share.
        let seed = self.seed.wrapping_add(pair as u64 - 1);
        let figures = within_its_time(course, subject, seed, self.options.quick).await?;
        let took_s = since.elapsed().as_secs_f64();
        let rows = course.about().rows.iter().filter(|row| self.options.wants(row.id));
        let new: Vec<Measurement> = rows
            .map(|row| Measurement { course, row: row.id, pair, side, first, reading: figures.of(row.id), took_s })
            .collect();
        self.progress.suspend(|| eprintln!("{}", line(&new, &subject.name)));
        let mut all = self.measurements.borrow_mut();
        all.extend(new);
        match &self.options.out {
            Some(directory) => files::keep(&all, self.subjects, directory),
            None => Ok(()),
        }
    }

    fn pairs(&self) -> usize {
        usize::from(self.options.pairs)
    }
}

/// A B, B A, A B: whatever changes on the machine over time falls on both.
fn order(pair: usize) -> [usize; 2] {
    if pair % 2 == 1 { [0, 1] } else { [1, 0] }
}

/// Whether anything is asked of a course that a busy machine would spoil.
fn needs_quiet(course: Course, options: &Options) -> bool {
    course.is_hurried() || course.about().rows.iter().any(|row| options.wants(row.id) && row.kind == Kind::Time)
}

/// About how much of the whole one pair of a course takes.
fn usual_s(course: Course, options: &Options) -> u64 {
    let each = seconds(course, options.quick);
    if needs_quiet(course, options) { 2 * each } else { each.div_ceil(u64::from(options.parallel)) }
}

fn seconds(course: Course, quick: bool) -> u64 {
    let (full, short) = course.about().seconds;
    if quick { short } else { full }
}

async fn within_its_time(course: Course, subject: &Subject, seed: u64, quick: bool) -> Result<Figures> {
    let soak = std::env::current_exe().context("cannot find this program")?;
    let world = World::new(subject, soak, seed, quick).map_err(anyhow::Error::msg)?;
    let limit = Duration::from_secs(TIME_FACTOR * seconds(course, quick) + TIME_SLACK_S);
    let measured = match tokio::time::timeout(limit, course.measure(&world)).await {
        Ok(measured) => measured,
        Err(_) => Err(format!("the course was not over within {} s", limit.as_secs())),
    };
    Ok(measured.unwrap_or_else(|fault| {
        let mut figures = Figures::default();
        course.about().rows.iter().for_each(|row| figures.add(row.id, Err(fault.clone())));
        figures
    }))
}

/// One measurement, on the terminal or in a log.
fn line(new: &[Measurement], subject: &str) -> String {
    let figure = |one: &Measurement| {
        let unit = one.course.about().rows.iter().find(|row| row.id == one.row).map(|row| row.unit);
        match (&one.reading, unit) {
            (Ok(reading), Some(unit)) => format!("{} {}", one.row, table::reading(Some(*reading), unit)),
            (Ok(reading), None) => format!("{} {}", one.row, reading.value()),
            (Err(why), _) => format!("{} unknown ({why})", one.row),
        }
    };
    let figures: Vec<String> = new.iter().map(figure).collect();
    let (pair, course) = new.first().map_or((0, ""), |one| (one.pair, one.course.about().name));
    format!("pair {pair}  {course:9} {subject}: {}", figures.join("  "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn options(rows: &[&str]) -> Options {
        let cli = Cli::try_parse_from([&["soak", "compare"], rows].concat()).unwrap();
        let Verb::Compare(options) = cli.verb else { panic!("compare was asked for") };
        options
    }

    #[test]
    fn neither_subject_always_comes_first() {
        assert_eq!([order(1), order(2), order(3)], [[0, 1], [1, 0], [0, 1]]);
    }

    #[test]
    fn a_course_is_alone_when_a_time_is_asked_of_it_or_it_is_in_a_hurry() {
        assert!(needs_quiet(Course::FloodSpoofed, &options(&[])));
        assert!(!needs_quiet(Course::FloodSpoofed, &options(&["P17-heap"])), "a peak is no time");
        assert!(needs_quiet(Course::Idle, &options(&["P6"])));
        assert!(!needs_quiet(Course::Rotation, &options(&[])));
    }
}
