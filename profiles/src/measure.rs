//! The verbs that run scenarios: `measure` judges what they come to, `bless` writes it down.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use crate::{
    args::{Bless, Measure, OVER, REGRESSION, Runs, USAGE},
    baseline::{Baseline, Regression},
    buckets::{Buckets, Rules},
    budgets::{Budgets, Verdict},
    difference::growths,
    figures::{Checkpoints, Taken, evaluate},
    heap::Heap,
    runner,
    scenario::{self, Checkpoint, Scenario},
    table::{self, FigureRow},
};

/// What this program was built as.
const BUILD: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// What is known of how heaps should be, in the source tree.
#[derive(Debug)]
struct Known {
    budgets: Budgets,
    baseline: Baseline,
}

impl Known {
    fn read() -> Result<Self> {
        let text =
            |file: &Path| std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        let (budgets, baseline) = (of_source("budgets.toml"), of_source("baseline.json"));
        let named = |file: &Path, error| anyhow!("{}: {error}", file.display());
        Ok(Self {
            budgets: Budgets::read(&text(&budgets)?).map_err(|error| named(&budgets, error))?,
            baseline: Baseline::read(&text(&baseline)?).map_err(|error| named(&baseline, error))?,
        })
    }

    fn write(&self) -> Result<()> {
        let write = |name: &str, text: String| {
            let file = of_source(name);
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("budgets.toml", self.budgets.to_string())?;
        write("baseline.json", self.baseline.write())
    }
}

/// A file of this package, where it was when the program was built.
fn of_source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Takes heaps and judges them.
pub(crate) async fn measure(args: &Measure) -> Result<u8> {
    let Some(scenarios) = named(&args.scenarios) else { return Ok(USAGE) };
    let known = Known::read()?;
    if known.budgets.build != BUILD && !args.show {
        let build = &known.budgets.build;
        eprintln!("error: the budgets hold for a {build} build and this is a {BUILD} build; --show judges nothing");
        return Ok(USAGE);
    }
    let rules = Rules::built_in();
    let mut judged = Judged { rules: &rules, known: &known, exit: 0, objects: Vec::new(), args };
    let all = take(&scenarios, &args.runs, &rules).await?;
    for scenario in &scenarios {
        judged.scenario(scenario, &all);
    }
    if args.scenarios.is_empty() {
        judged.coverage(&all);
    }
    if args.json {
        println!("{}", json!({"v": 1, "build": BUILD, "exit": judged.exit, "scenarios": judged.objects}));
    }
    Ok(judged.exit)
}

/// Takes heaps and takes their word for it.
pub(crate) async fn bless(args: &Bless) -> Result<u8> {
    let Some(scenarios) = named(&args.scenarios) else { return Ok(USAGE) };
    if args.why.trim().is_empty() {
        eprintln!("error: --why is empty; say what made the figures what they are");
        return Ok(USAGE);
    }
    let mut known = Known::read()?;
    if known.budgets.build != BUILD {
        eprintln!("error: the budgets hold for a {} build and this is a {BUILD} build", known.budgets.build);
        return Ok(USAGE);
    }
    let (commit, date) = (commit(), time::OffsetDateTime::now_utc().date().to_string());
    let rules = Rules::built_in();
    let all = take(&scenarios, &args.runs, &rules).await?;
    for figure in scenarios.iter().flat_map(|scenario| &scenario.figures) {
        let amount = evaluate(figure, &rules, &all);
        if known.budgets.judge(figure.name, amount) != Verdict::Within {
            println!("{}: {:.1} bytes, {:.2} blocks", figure.name, amount.bytes, amount.blocks);
            known.budgets.set(figure.name, amount, &args.why, &commit, &date);
        }
    }
    all.iter().for_each(|(name, taken)| known.baseline.set(name, &taken.buckets));
    known.baseline.commit = commit;
    known.baseline.date = date;
    let unmatched = unmatched(&rules, &all);
    if args.scenarios.is_empty() && !unmatched.is_empty() {
        bail!("no allocation matches {}; take the rules out of buckets.toml", unmatched.join(", "));
    }
    known.write()?;
    Ok(0)
}

/// The scenarios of these names, or all. None, with a word to the user, where there is no such scenario.
fn named(names: &[String]) -> Option<Vec<Scenario>> {
    let all = scenario::all();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|scenario| scenario.name == **name)) {
        let there: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        eprintln!("error: `{unknown}` is no scenario; there are {}", there.join(", "));
        return None;
    }
    let is_meant = |scenario: &Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Some(all.into_iter().filter(is_meant).collect())
}

/// The heaps of all these scenarios, taken side by side: most of what they do is wait.
async fn take(scenarios: &[Scenario], runs: &Runs, rules: &Rules) -> Result<Checkpoints> {
    let checkpoints = || scenarios.iter().flat_map(|scenario| &scenario.checkpoints);
    let courses: Vec<_> = checkpoints().map(|one| (one.name, one.course)).collect();
    let heaps = runner::run(&courses, runs).await?;
    let taken = heaps.into_iter().map(|heap| Taken::new(rules, heap));
    Ok(checkpoints().map(|one| one.name.to_owned()).zip(taken).collect())
}

fn unmatched(rules: &Rules, all: &Checkpoints) -> Vec<String> {
    rules.unmatched(&all.values().map(|taken| &taken.buckets).collect::<Vec<_>>())
}

/// What a measurement came to so far.
#[derive(Debug)]
struct Judged<'a> {
    rules: &'a Rules,
    known: &'a Known,
    exit: u8,
    objects: Vec<serde_json::Value>,
    args: &'a Measure,
}

impl Judged<'_> {
    fn scenario(&mut self, scenario: &Scenario, all: &Checkpoints) {
        let checkpoints = || scenario.checkpoints.iter().map(|one| (one.name, &all[one.name].buckets));
        let budgets = &self.known.budgets;
        let judge = |name, amount| (!self.args.show).then(|| budgets.judge(name, amount));
        let rows: Vec<FigureRow> = scenario
            .figures
            .iter()
            .map(|figure| (figure, evaluate(figure, self.rules, all)))
            .map(|(figure, amount)| FigureRow { name: figure.name, amount, verdict: judge(figure.name, amount) })
            .collect();
        self.object(scenario.name, &rows, checkpoints());
        let figures = table::figures(&rows, budgets);
        self.say(&format!("{}: {}\n{figures}\n", scenario.name, scenario.about));
        if self.args.buckets {
            for (name, buckets) in checkpoints() {
                let before = table::beside(&self.known.baseline, name);
                self.say(&format!("{name}\n{}\n", table::buckets(buckets, &before, 1)));
            }
        }
        if self.args.show {
            return;
        }
        for (figure, row) in scenario.figures.iter().zip(&rows) {
            if row.verdict != Some(Verdict::Within) {
                self.exit = OVER;
                self.name_sites(figure, all);
            }
        }
        for checkpoint in &scenario.checkpoints {
            self.checkpoint(checkpoint, &all[checkpoint.name].buckets);
        }
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint, buckets: &Buckets) {
        let name = checkpoint.name;
        if let Err(sentence) = buckets.check_other() {
            self.fail(OVER, &format!("{name}: {sentence}"));
        }
        if checkpoint.course.is_steady() {
            for Regression { bucket, before, now } in self.known.baseline.regressions(name, buckets) {
                self.fail(REGRESSION, &format!("{name}: {bucket} grew from {before} to {now} bytes"));
            }
        }
    }

    /// Says who holds what a figure tells of.
    fn name_sites(&self, figure: &scenario::Figure, all: &Checkpoints) {
        let nothing = Heap { sites: Vec::new() };
        let before = figure.less.map_or(&nothing, |name| &all[name].heap);
        let growths = growths(self.rules, before, &all[figure.at].heap);
        eprintln!("{}, its largest call sites:\n{}", figure.name, table::growths(growths.iter().take(10), figure.per));
        eprintln!("  in full: {}", runner::file(&self.args.runs.out, figure.at).display());
    }

    /// After all scenarios: whether every rule is of use.
    fn coverage(&mut self, all: &Checkpoints) {
        for path in unmatched(self.rules, all) {
            self.fail(OVER, &format!("no allocation of any checkpoint matches `{path}` of buckets.toml"));
        }
    }

    fn fail(&mut self, exit: u8, sentence: &str) {
        eprintln!("{sentence}");
        // Over a budget outweighs worse than the baseline.
        if self.exit != OVER {
            self.exit = exit;
        }
    }

    fn object<'a>(
        &mut self,
        scenario: &str,
        rows: &[FigureRow],
        checkpoints: impl Iterator<Item = (&'a str, &'a Buckets)>,
    ) {
        let figure = |row: &FigureRow| {
            let verdict = row.verdict.map(|verdict| match verdict {
                Verdict::Within => "ok",
                Verdict::Over => "over",
                Verdict::Loose(_) => "loose",
                Verdict::Unknown => "no-budget",
            });
            json!({"name": row.name, "bytes": row.amount.bytes, "blocks": row.amount.blocks, "verdict": verdict})
        };
        let figures: Vec<_> = rows.iter().map(figure).collect();
        let checkpoints: BTreeMap<_, _> = checkpoints.map(|(name, buckets)| (name, buckets.to_json())).collect();
        self.objects.push(json!({"name": scenario, "figures": figures, "checkpoints": checkpoints}));
    }

    fn say(&self, text: &str) {
        if !self.args.json {
            println!("{text}");
        }
    }
}

/// The commit this tree is at, or that nobody knows: a tarball has none.
fn commit() -> String {
    let git = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    commit.map_or_else(|| "unknown".into(), |commit| String::from_utf8_lossy(&commit).trim().to_owned())
}
