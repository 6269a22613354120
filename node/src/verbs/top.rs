//! `perennial top`: a live view of the running node, on a terminal.
//!
//! One loop: ask the node, read keys, draw. What is known is in `top/view.rs`, what is drawn in `top/draw.rs`. The terminal
//! is restored whatever ends the loop: a key, a signal, an error, a panic.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use ratatui::{DefaultTerminal, crossterm::event};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    cli::TopArgs,
    client::api::Api,
    exit::{Exit, Failure},
    signals::EndSignals,
    telemetry::is_colour_wanted,
};

mod draw;
mod view;

use view::{Look, View, Wish};

/// How often keys are looked for. Nobody notices a twentieth of a second.
const KEY_INTERVAL: Duration = Duration::from_millis(50);

/// A node that has not answered within this long is busy, and the screen says so.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn top(args: &TopArgs) -> Result<Exit, Failure> {
    if args.ask.json || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let sentence = "`top` is for a terminal; for programs there is `perennial status --watch --json`";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let api = Api::new(&args.ask)?.within(LOOK_TIMEOUT);
    // Before the screen is taken, so that a node that is not there is an error like any other.
    let look = look(&api).await?;
    let mut view = View::new(args.interval, args.sort, is_colour_wanted(&io::stdout()));
    view.on_look(look, Duration::ZERO);
    let signals = EndSignals::catch()?;
    let screen = Screen::take()?;
    run(api, view, signals, screen).await
}

async fn run(api: Api, mut view: View, mut signals: EndSignals, mut screen: Screen) -> Result<Exit, Failure> {
    let mut key_ticks = ticks(KEY_INTERVAL);
    let mut look_ticks = ticks(view.interval);
    look_ticks.tick().await;
    let mut last = Instant::now();
    loop {
        screen.draw(&view)?;
        let looking = async {
            look_ticks.tick().await;
            look(&api).await
        };
        tokio::pin!(looking);
        let looked = loop {
            tokio::select! {
                biased; // A signal first, then the person; the node may be slow to answer.
                signal = signals.next() => return Ok(signal.exit()),
                _ = key_ticks.tick() => match read_keys(&mut view)? {
                    Wish::Quit => return Ok(Exit::Ok),
                    Wish::Draw => screen.draw(&view)?,
                    Wish::Nothing => {}
                },
                looked = &mut looking => break looked,
            }
        };
        match looked {
            Ok(look) => view.on_look(look, last.elapsed()),
            Err(failure) => view.on_trouble(failure.sentence),
        }
        last = Instant::now();
    }
}

fn ticks(pause: Duration) -> Interval {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Takes whatever the person has done since the last time: pressed keys, given the terminal another size.
fn read_keys(view: &mut View) -> Result<Wish, Failure> {
    let failed = |error: io::Error| Failure::io("read keys", &error);
    let mut wish = Wish::Nothing;
    while event::poll(Duration::ZERO).map_err(failed)? {
        wish = match event::read().map_err(failed)? {
            event::Event::Key(key) => view.on_key(key),
            _ => Wish::Draw,
        };
        if wish == Wish::Quit {
            break;
        }
    }
    Ok(wish)
}

async fn look(api: &Api) -> Result<Look, Failure> {
    Ok(Look {
        status: api.get("/v1/status").await?,
        connections: api.get("/v1/connections").await?,
        ledger: api.get("/v1/ledger").await?,
    })
}

/// The terminal while it is ours. Dropping it gives it back; on a panic that is done before the panic is told.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn take() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| {
            // Half of it may have been done.
            ratatui::restore();
            Failure::io("take the terminal", &error)
        })?;
        Ok(Self { terminal })
    }

    fn draw(&mut self, view: &View) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| draw::draw(frame, view));
        drawn.map(drop).map_err(|error| Failure::io("draw on the terminal", &error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone cannot be restored.
        let _gone = ratatui::try_restore();
    }
}

#[cfg(test)]
mod tests;
