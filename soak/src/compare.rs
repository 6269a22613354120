//! The verb `compare`: two programs, the same measurements on both in interleaved pairs, and what may be said of them.
//!
//! `rows/` measure, one course a file, in a `world` of one subject; `bench` decides the order and keeps the clock; `verdict`
//! thinks, `row` says what a figure is; `table` and `page` are for people, `files` for programs.

mod bench;
mod files;
pub(crate) mod options;
mod page;
mod plot;
mod row;
mod rows;
mod table;
mod verdict;
mod world;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;

use self::{
    bench::Bench,
    options::Options,
    row::Reading,
    rows::Course,
    verdict::{Circumstances, Judged, Pair},
    world::Subject,
};

/// One measurement of one subject for one row.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub course: Course,
    pub row: &'static str,
    /// From 1.
    pub pair: usize,
    /// 0 is a, 1 is b.
    pub side: usize,
    /// Whether it came first in its pair. Neither did where both were measured at the same time.
    pub first: bool,
    pub reading: Result<Reading, String>,
    pub took_s: f64,
}

/// What is known of the machine before the first measurement.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Runnable tasks over the last minute; `None` where the kernel does not tell.
    pub load: Option<f64>,
    pub cpus: usize,
    pub kernel: String,
}

/// A load per processor above which times are not worth measuring. Guess: half of one processor of two is somebody's
/// compiler.
const LOAD_MAX: f64 = 0.25;

impl Machine {
    fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { load, cpus, kernel: read("/proc/sys/kernel/osrelease").trim().to_owned() }
    }

    /// The load, where it is too high for times.
    pub(crate) fn busy(&self) -> Option<f64> {
        self.load.filter(|load| *load > LOAD_MAX * self.cpus as f64)
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(crate) struct Report {
    pub subjects: [Subject; 2],
    pub seed: u64,
    pub pairs: usize,
    pub quick: bool,
    pub machine: Machine,
    pub measurements: Vec<Measurement>,
    pub rows: Vec<Judged>,
    pub took_s: f64,
}

/// The programs to compare, or which one is missing.
pub(crate) fn subjects(options: &Options, beside: &Path) -> Result<[Subject; 2], String> {
    let a = options::find(options.a.as_deref(), beside, "perennial", "perennial-node")?;
    let b = options::find(options.b.as_deref(), beside, "perennial-soak-stock", "perennial-soak")?;
    Ok([subject(a), subject(b)])
}

fn subject(bin: PathBuf) -> Subject {
    let name = bin.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let help = std::process::Command::new(&bin).args(["up", "--help"]).stdin(std::process::Stdio::null()).output();
    let has_known = help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--known"));
    Subject { name, bin, has_known }
}

/// Measures every pair, judges, prints and writes; the exit code.
pub(crate) async fn run(options: &Options, subjects: [Subject; 2]) -> Result<u8> {
    let begun = Instant::now();
    let machine = Machine::look();
    let seed = options.seed.unwrap_or_else(rand::random);
    let wanted = |course: &Course| course.about().rows.iter().any(|row| options.wants(row.id));
    let courses: Vec<Course> = Course::ALL.into_iter().filter(wanted).collect();
    let pairs = usize::from(options.pairs);
    let [a, b] = &subjects;
    eprintln!("compare seed {seed}: a {} against b {}, {pairs} pairs", a.bin.display(), b.bin.display());
    if let Some(load) = machine.busy() {
        eprintln!("UNKNOWN: load {load:.1} before start; no times are judged");
    }
    let measurements = Bench::new(options, &subjects, seed, &courses).measure().await?;
    let rows = judge(&courses, &measurements, options, &machine);
    let took_s = begun.elapsed().as_secs_f64();
    let report = Report { subjects, seed, pairs, quick: options.quick, machine, measurements, rows, took_s };
    files::print(&report, options.json)?;
    if let Some(directory) = &options.out {
        files::write(&report, directory)?;
    }
    Ok(verdict::exit_code(&report.rows))
}

fn judge(courses: &[Course], measurements: &[Measurement], options: &Options, machine: &Machine) -> Vec<Judged> {
    let mut rows = Vec::new();
    for course in courses {
        for row in course.about().rows.iter().filter(|row| options.wants(row.id)) {
            let of = |pair: usize, side: usize| {
                let found = measurements.iter().find(|one| (one.row, one.pair, one.side) == (row.id, pair, side));
                found.map_or_else(|| Err("was not measured".into()), |one| one.reading.clone())
            };
            let pairs: Vec<Pair> = (1..=usize::from(options.pairs)).map(|pair| [of(pair, 0), of(pair, 1)]).collect();
            let shrunk = options.quick.then(|| course.about().quick.to_owned());
            let circumstances = Circumstances { busy: machine.busy(), shrunk, allowed: options.allowed(row.id) };
            rows.push(verdict::judge(row, pairs, circumstances));
        }
    }
    rows
}
