//! The verb `shrink`: the fewest events of a failed plan that still fail in the same way.
//!
//! Processes and networks have their own will, so one replay proves nothing: a smaller plan counts as failing when three
//! of five replays fail by the same check. The search is delta debugging (Zeller & Hildebrandt 2002, `ddmin`).

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{
    args::Shrink,
    epochs::Pace,
    judge::{Outcome, epochs::judge},
    run, run_files,
    run_format::{PlannedStep, Record},
};

/// Replays of one plan that must fail, and as many that must not, before the other side is believed.
const DECIDES: usize = 3;

/// Finds them and leaves the last failing run behind.
pub(crate) fn shrink(args: &Shrink) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shrunk = runtime.context("cannot start the runtime").and_then(|runtime| runtime.block_on(smallest(args)));
    match shrunk {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            run::error_code(&error).into()
        }
    }
}

async fn smallest(args: &Shrink) -> Result<u8> {
    let recorded = run_files::read(&args.run).map_err(anyhow::Error::msg)?;
    let verdict = judge(&recorded);
    let Some(reason) = verdict.reason().filter(|_| verdict.outcome == Outcome::Fail).cloned() else {
        bail!("{} did not fail, so there is nothing to shrink", args.run.display());
    };
    eprintln!("looking for the fewest events that still fail {}: {}", reason.name, reason.detail);
    let plan = run_files::read_plan(&args.run).map_err(anyhow::Error::msg)?;
    let events: Vec<usize> = (0..plan.plan.len()).filter(|at| plan.plan[*at].step.is_event()).collect();
    let begun = tokio::time::Instant::now();
    let mut stopped = None;
    let fewest = ddmin(events, async |kept: &[usize]| {
        // What is out of time is no smaller plan.
        if stopped.is_some() || begun.elapsed() > args.common.max_time {
            return Ok(false);
        }
        let smaller = only(&plan, kept);
        let (mut failed, mut held) = (0, 0);
        while failed < DECIDES && held < DECIDES {
            let pace = Pace { max_time: args.common.max_time, rate: None, plain: args.common.plain };
            let finished = Box::pin(run::one(&args.common, smaller.clone(), pace)).await?;
            if let Some(code) = finished.signal {
                stopped = Some(code);
                return Ok(false);
            }
            let same = finished.failed.contains(&reason.name);
            *if same { &mut failed } else { &mut held } += 1;
        }
        eprintln!("{} events: {}", kept.len(), if failed == DECIDES { "still fail" } else { "hold" });
        Ok(failed == DECIDES)
    })
    .await?;
    if let Some(code) = stopped {
        return Ok(code);
    }
    let all = plan.plan.iter().filter(|step| step.step.is_event()).count();
    println!("left of {all} events: {}", fewest.len());
    for at in &fewest {
        println!("  epoch {:3}  {}", plan.plan[*at].epoch, plan.plan[*at].step);
    }
    let smaller = only(&plan, &fewest);
    let directory = args.run.join("shrunk");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    run_files::write_plan(&directory, &smaller)?;
    println!("replay them: perennial-soak replay {}", directory.display());
    Ok(0)
}

/// The same plan with these events alone. Epochs behind the last of them are dropped, barriers and probes of the others stay.
fn only(record: &Record, kept: &[usize]) -> Record {
    let mut record = record.clone();
    let warm_up = record.info.warm_up_epochs;
    let last = kept.iter().map(|at| record.plan[*at].epoch).max().unwrap_or(0).max(warm_up + 2);
    let steps = record.plan.into_iter().enumerate();
    let stays = |(at, planned): (usize, PlannedStep)| {
        let is_kept = !planned.step.is_event() || kept.binary_search(&at).is_ok();
        (is_kept && planned.epoch <= last).then_some(planned)
    };
    record.plan = steps.filter_map(stays).collect();
    record.info.epochs = record.info.epochs.min(last - warm_up);
    record
}

/// A subset of `items`, in their order, that still fails and of which no single part can be left out. The whole is taken to
/// fail and not tried.
async fn ddmin(items: Vec<usize>, mut fails: impl AsyncFnMut(&[usize]) -> Result<bool>) -> Result<Vec<usize>> {
    let mut kept = items;
    let mut parts = 2;
    while kept.len() >= 2 {
        let size = kept.len().div_ceil(parts);
        let chunks: Vec<Vec<usize>> = kept.chunks(size).map(<[usize]>::to_vec).collect();
        let mut smaller = None;
        for chunk in &chunks {
            let without: Vec<usize> = kept.iter().copied().filter(|item| !chunk.contains(item)).collect();
            if fails(chunk).await? {
                smaller = Some((chunk.clone(), 2));
                break;
            }
            if chunks.len() > 2 && fails(&without).await? {
                smaller = Some((without, (parts - 1).max(2)));
                break;
            }
        }
        match smaller {
            Some((fewer, next)) => (kept, parts) = (fewer, next),
            None if parts >= kept.len() => break,
            None => parts = (2 * parts).min(kept.len()),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fewest(count: usize, guilty: &[usize]) -> (Vec<usize>, usize) {
        let mut tried = 0;
        let found = ddmin((0..count).collect(), async |kept: &[usize]| {
            tried += 1;
            Ok(guilty.iter().all(|one| kept.contains(one)))
        });
        let found = found.await.unwrap();
        (found, tried)
    }

    #[tokio::test]
    async fn what_is_guilty_is_left_wherever_it_was() {
        for guilty in [&[17][..], &[3, 17], &[0, 63], &[5, 6, 40], &[1, 20, 30, 62]] {
            let (found, tried) = fewest(64, guilty).await;
            assert_eq!(found, guilty);
            assert!(tried < 200, "{tried} replays for {guilty:?}");
        }
        assert_eq!(fewest(1, &[0]).await.0, [0]);
    }

    #[tokio::test]
    async fn a_plan_that_only_fails_as_a_whole_stays_whole() {
        let all: Vec<usize> = (0..9).collect();
        assert_eq!(fewest(9, &all).await.0, all);
    }

    #[test]
    fn epochs_behind_the_last_event_are_dropped() {
        let mut record = crate::selftest::record("none");
        record.info.warm_up_epochs = 1;
        record.info.epochs = 9;
        let step = |epoch| PlannedStep { epoch, step: crate::plan::Step::Rest { for_ms: 1 } };
        let probe = |epoch| PlannedStep { epoch, step: crate::plan::Step::Probe { from: 0 } };
        record.plan = (1..=10).flat_map(|epoch| [step(epoch), probe(epoch)]).collect();
        let smaller = only(&record, &[6, 8]);
        assert_eq!(smaller.info.epochs, 4);
        let epochs: Vec<u32> = smaller.plan.iter().map(|step| step.epoch).collect();
        assert_eq!(epochs, [1, 2, 3, 4, 4, 5, 5]);
    }
}
