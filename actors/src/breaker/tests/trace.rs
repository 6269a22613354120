//! How a script becomes a trace: two breakers, virtual time, one line a step.

use expect_test::Expect;
use rand::{SeedableRng, rngs::StdRng};

use super::{super::*, SECOND, settings};

/// Plays a script and compares what each step brought.
///
/// `ask`, or `ask*3` for three attempts at once; `fail` and `ok` of an attempt that is no probe; `win`, `lose` and `drop` of the
/// probe under way, `lose-first` of the first one ever made; `+30s` passes time, `due` all of it until the next probe; `look`
/// only looks, `hasten` tells of a network that has changed. `a:` and `b:` are two backends.
pub(super) fn check(script: &str, expected: Expect) {
    check_with(settings(), script, expected);
}

pub(super) fn check_with(settings: Settings, script: &str, expected: Expect) {
    let mut trace = Trace::new(settings, 1);
    let lines: Vec<_> = script
        .split(' ')
        .map(|step| {
            let (at, what) = trace.play(step);
            format!("{:<9} {step:<11} {what}\n", format!("{at:.1} s"))
        })
        .collect();
    expected.assert_eq(&lines.concat());
}

pub(super) struct Trace {
    start: Instant,
    now: Instant,
    pace: u32,
    rng: StdRng,
    backends: [(Breaker, Option<u64>); 2],
}

impl Trace {
    pub(super) fn new(settings: Settings, pace: u32) -> Self {
        let start = Instant::now();
        let backends = [0, 1].map(|_| (Breaker::new(settings, start), None));
        Self { start, now: start, pace, rng: StdRng::seed_from_u64(7), backends }
    }

    /// The time afterwards in seconds, and what the step brought without any time in it.
    pub(super) fn play(&mut self, step: &str) -> (f64, String) {
        let (name, step) = step.split_once(':').unwrap_or(("a", step));
        // `due:a` names the backend last.
        let (name, step) = if name == "due" { (step, name) } else { (name, step) };
        let (breaker, probe) = &mut self.backends[usize::from(name == "b")];
        match step.strip_prefix('+') {
            Some(time) => self.now += SECOND * time.trim_end_matches('s').parse().unwrap() / self.pace,
            None if step == "due" => self.now = breaker.view().probe_at.expect("a probe is to come"),
            None => {}
        }
        let now = self.now;
        let turn = breaker.on_time(now);
        let mut said = String::new();
        let turn = match step.split_once('*').unwrap_or((step, "1")) {
            ("ask", attempts) => {
                let verdict = breaker.ask(attempts.parse().unwrap(), now);
                said = match verdict {
                    Verdict::Go => "go".into(),
                    Verdict::Wait(_) => "wait".into(),
                    Verdict::Probe(number) => format!("probe {number}"),
                };
                if let Verdict::Probe(number) = verdict {
                    *probe = Some(number);
                }
                turn
            }
            ("ok", _) => breaker.succeed(now),
            ("win", _) => breaker.succeed(now),
            ("fail", _) => breaker.fail(None, now, &mut self.rng),
            ("lose", _) => breaker.fail(*probe, now, &mut self.rng),
            ("hasten", _) => {
                breaker.hasten(now, &mut self.rng);
                turn
            }
            ("lose-first", _) => breaker.fail(Some(1), now, &mut self.rng),
            ("drop", _) => {
                breaker.cancel(probe.unwrap(), now);
                turn
            }
            _ => turn,
        };
        let view = breaker.view();
        let shown =
            [said, view.state.name().into(), format!("{} failed", view.failures), format!("{} saved", view.saved)];
        let shown = shown.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
        let turned = match turn {
            None => String::new(),
            Some(Turn::Degraded { .. }) => "; degraded".into(),
            Some(Turn::Recovered { saved, .. }) => format!("; recovered, {saved} saved meanwhile"),
            Some(Turn::Lapsed { saved, .. }) => format!("; lapsed, {saved} saved meanwhile"),
        };
        (self.now.duration_since(self.start).as_secs_f64(), shown + &turned)
    }
}
