//! How fast a mesh of ours is beside one of stock, and beside the layers underneath both: iroh, noq, UDP.
//!
//! `speed [COURSE…] [--pairs 5] [--quick]`. Every measurement is a process of its own that holds a whole mesh on 127.0.0.1, so
//! that processor time and heap are its own; the subjects take turns, A B C, C B A. What is printed are medians, and ratios within
//! pairs with the interval of the sign test. Nothing here asserts anything: times on a shared machine prove nothing by themselves.

mod course;
mod handshakes;
mod measure;
mod raw;
mod swarm;
mod table;

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use course::Course;
use measure::Figure;
use swarm::Subject;
use table::Table;

#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

/// Measures ours, stock and the layers underneath in turns
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    one: Option<One>,
    /// What to measure; everything if none is named
    courses: Vec<Course>,
    /// Measurements of each subject; fewer than five have no interval
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// A tenth of the time, for a look
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Subcommand)]
enum One {
    /// One measurement of one subject; its figures as JSON
    Measure {
        course: Course,
        subject: Subject,
        /// Decides who joins through whom
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(One::Measure { course, subject, seed, quick }) = cli.one {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let figures = runtime.block_on(course.measure(subject, seed, quick))?;
        println!("{}", serde_json::to_string(&figures)?);
        // Nodes and pumps end with the process.
        std::process::exit(0)
    }
    let courses = if cli.courses.is_empty() { Course::all() } else { cli.courses };
    for course in courses {
        let mut table = Table::new(course);
        for pair in 1..=cli.pairs {
            let mut subjects = course.subjects();
            if pair % 2 == 0 {
                subjects.reverse();
            }
            for subject in subjects {
                table.add(pair, subject, in_a_process(course, subject, pair.into(), cli.quick)?);
            }
        }
        println!("{table}");
    }
    Ok(())
}

/// Measures in a process of its own.
fn in_a_process(course: Course, subject: Subject, seed: u64, quick: bool) -> Result<Vec<Figure>> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["measure", &course.to_string(), &subject.to_string(), "--seed", &seed.to_string()]);
    if quick {
        command.arg("--quick");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot start a measurement")?;
    ensure!(output.status.success(), "{course} of {subject} ended with {}", output.status);
    match serde_json::from_slice(&output.stdout) {
        Ok(figures) => Ok(figures),
        Err(error) => bail!("{course} of {subject} printed no figures: {error}"),
    }
}
