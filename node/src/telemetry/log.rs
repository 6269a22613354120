//! Lines on stderr: which form they have, and that no place in the program floods them. How much one place may say is
//! decided in `throttle.rs`.

use std::{
    hash::{Hash, Hasher},
    io::IsTerminal,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::FilterExt,
    fmt::{self, MakeWriter},
    layer::{Context, Filter},
    registry::LookupSpan,
};

use super::throttle::{Summary, Throttle};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// key=value.
    Logfmt,
}

/// A change of state is told once, whatever was said before it: these targets are never cut. The first marks changes of
/// state wherever they are logged; the second is this file's own.
const NEVER_CUT: [&str; 2] = ["perennial::state", "perennial::log"];

/// How late a summary may come.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// A layer that writes what passes `filter`, and of that no more than one place may say.
pub(super) fn layer<S, W>(
    format: LogFormat,
    filter: impl Filter<S> + Send + Sync + 'static,
    lines: &Lines,
    writer: W,
    colour: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let plain = fmt::layer().with_writer(writer);
    // The throttle last: it must not count what nobody would have seen.
    let filter = filter.and(lines.clone());
    match format {
        LogFormat::Text => plain.with_ansi(colour).with_filter(filter).boxed(),
        LogFormat::Json => plain.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Logfmt => plain
            .event_format(tracing_logfmt::EventsFormatter::default())
            .fmt_fields(tracing_logfmt::FieldsFormatter::default())
            .with_filter(filter)
            .boxed(),
    }
}

/// Colour is for terminals, and not for those who set `NO_COLOR`.
pub(crate) fn is_colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What every place has said lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    throttle: Mutex<Throttle<Site>>,
    suppressed: AtomicU64,
}

impl Lines {
    /// Lines that were not shown, since the start.
    pub(crate) fn suppressed(&self) -> u64 {
        self.0.suppressed.load(Ordering::Relaxed)
    }

    /// Tells what was not shown, for as long as it is run.
    pub(super) async fn summarise(self) {
        let mut turn = interval(SUMMARY_INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let ended = self.lock().close_ended(Instant::now());
            tell(&ended);
        }
    }

    /// Tells what was not shown and has not been told.
    pub(super) fn close(&self) {
        let all = self.lock().close_all();
        tell(&all);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Throttle<Site>> {
        // A count is still right after somebody's panic, and the log must go on after one.
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not while the table is locked: a line that is written passes through it.
fn tell(summaries: &[Summary<Site>]) {
    for Summary { site: Site(place), suppressed } in summaries {
        let (file, line) = (place.file().unwrap_or(place.target()), place.line().unwrap_or_default());
        tracing::warn!(target: "perennial::log", suppressed, site = %format_args!("{file}:{line}"), "lines not shown");
    }
}

impl<S> Filter<S> for Lines {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let place = event.metadata();
        // Whoever asks for `debug` wants all of it, and nobody runs with it for long.
        let is_cut = *place.level() <= Level::INFO && !NEVER_CUT.contains(&place.target());
        let is_shown = !is_cut || self.lock().allow(Site(place), Instant::now());
        if !is_shown {
            self.0.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        is_shown
    }
}

/// A place in the program that logs.
#[derive(Debug, Clone, Copy)]
struct Site(&'static Metadata<'static>);

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.0.callsite() == other.0.callsite()
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.callsite().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload};

    use super::*;

    /// What is written is kept.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is on stderr after `say`, line by line.
    fn written(format: LogFormat, filter: &str, say: impl FnOnce(&Lines)) -> Vec<String> {
        let (paper, lines) = (Paper::default(), Lines::default());
        let sink = paper.clone();
        let filter = EnvFilter::new(filter);
        let layer = layer(format, filter, &lines, move || sink.clone(), false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || say(&lines));
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_flood_of_one_place_is_cut_counted_and_told_at_the_end() {
        let said = written(LogFormat::Text, "info", |lines| {
            for number in 0..1000 {
                tracing::info!(number, "flood");
            }
            tracing::info!("elsewhere");
            assert_eq!(lines.suppressed(), 940);
            lines.close();
            lines.close();
        });
        assert_eq!(said.iter().filter(|line| line.contains("flood")).count(), 60);
        assert!(said[60].contains("elsewhere"), "{}", said[60]);
        assert_eq!(said.len(), 62, "one summary");
        let place = file!();
        assert!(said[61].contains("suppressed=940") && said[61].contains(place), "{}", said[61]);
    }

    #[test]
    fn changes_of_state_and_what_was_asked_for_are_never_cut() {
        let said = written(LogFormat::Text, "debug", |lines| {
            for number in 0..200 {
                tracing::info!(target: "perennial::state", number, "changed");
                tracing::debug!(number, "looked at");
            }
            assert_eq!(lines.suppressed(), 0);
        });
        assert_eq!(said.len(), 400);
    }

    #[test]
    fn a_filter_that_changes_changes_what_is_shown_and_not_what_was_counted() {
        let (paper, lines) = (Paper::default(), Lines::default());
        let sink = paper.clone();
        let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
        let layer = layer(LogFormat::Text, filter, &lines, move || sink.clone(), false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for filter in ["info", "off", "debug"] {
                handle.reload(EnvFilter::new(filter)).unwrap();
                for _ in 0..50 {
                    // Written once: it is one place.
                    let say = || tracing::info!(filter, "flood");
                    say();
                }
                tracing::debug!(filter, "looked at");
            }
        });
        let written = paper.0.lock().unwrap().clone();
        let written = String::from_utf8(written).unwrap();
        let count = |part: &str| written.lines().filter(|line| line.contains(part)).count();
        assert_eq!((count("flood"), count("looked at"), lines.suppressed()), (60, 1, 40), "{written}");
    }

    #[test]
    fn what_the_filter_hides_is_not_counted_as_suppressed() {
        let said = written(LogFormat::Text, "warn", |lines| {
            for number in 0..200 {
                tracing::info!(number, "hidden");
            }
            assert_eq!(lines.suppressed(), 0);
        });
        assert!(said.is_empty());
    }

    #[test]
    fn machines_read_json_and_logfmt() {
        let say = |_: &Lines| tracing::warn!(peer = "a b", number = 7, "it is \"late\"");
        let json = written(LogFormat::Json, "info", say);
        let line: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!((json.len(), &line["level"], &line["number"]), (1, &"WARN".into(), &7.into()));
        assert_eq!((&line["message"], &line["peer"]), (&"it is \"late\"".into(), &"a b".into()));
        assert!(line["timestamp"].is_string() && line["target"].is_string());
        let logfmt = written(LogFormat::Logfmt, "info", say);
        assert_eq!(logfmt.len(), 1);
        for part in ["level=warn", "number=7", r#"peer="a b""#, r#"message="it is \"late\"""#] {
            assert!(logfmt[0].contains(part), "{part} in {}", logfmt[0]);
        }
    }
}
