//! What `top` knows: the last two looks at the node, the rates between them, and how the person wants the table. `[pure]`

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::{
    cli::ConnectionOrder,
    control::protocol::{
        LedgerView, Status,
        door::{Connections, LiveView},
    },
};

/// Rows that one press of a page key moves.
const PAGE_ROWS: usize = 10;

/// All that one look at the node tells.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) status: Status,
    pub(super) connections: Connections,
    pub(super) ledger: LedgerView,
}

/// Per second, since the look before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) published: f64,
    pub(super) delivered: f64,
    pub(super) sent: f64,
    /// Everything refused, ignored, dropped and closed.
    pub(super) refused: f64,
    /// Bytes in both directions, by number of the connection.
    pub(super) bytes: BTreeMap<u64, f64>,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) interval: Duration,
    pub(super) has_colour: bool,
    pub(super) order: ConnectionOrder,
    pub(super) is_reversed: bool,
    pub(super) is_paused: bool,
    /// The first connection that is shown.
    pub(super) scroll: usize,
    /// None before the first answer.
    pub(super) look: Option<Look>,
    pub(super) rates: Rates,
    /// Why there is nothing new, if so.
    pub(super) trouble: Option<String>,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// The screen has changed.
    Draw,
    Quit,
}

impl View {
    pub(super) fn new(interval: Duration, order: ConnectionOrder, has_colour: bool) -> Self {
        Self {
            interval,
            has_colour,
            order,
            is_reversed: false,
            is_paused: false,
            scroll: 0,
            look: None,
            rates: Rates::default(),
            trouble: None,
        }
    }

    /// The node has answered, `elapsed` after its last answer. While paused nothing changes.
    pub(super) fn on_look(&mut self, look: Look, elapsed: Duration) {
        self.trouble = None;
        if self.is_paused {
            return;
        }
        if let Some(last) = &self.look {
            self.rates = rates(last, &look, elapsed);
        }
        self.scroll = self.scroll.min(look.connections.connections.len().saturating_sub(1));
        self.look = Some(look);
    }

    /// The node has not answered.
    pub(super) fn on_trouble(&mut self, sentence: String) {
        self.trouble = Some(sentence);
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let rows = self.look.as_ref().map_or(0, |look| look.connections.connections.len());
        let move_to = |row: usize| row.min(rows.saturating_sub(1));
        match key.code {
            // In raw mode the terminal sends no SIGINT.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('a') => self.sort_by(ConnectionOrder::Age),
            KeyCode::Char('t') => self.sort_by(ConnectionOrder::Rtt),
            KeyCode::Char('b') => self.sort_by(ConnectionOrder::Bytes),
            KeyCode::Char('u') => self.sort_by(ConnectionOrder::Queue),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('p') | KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Down | KeyCode::Char('j') => self.scroll = move_to(self.scroll + 1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = move_to(self.scroll + PAGE_ROWS),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = move_to(rows),
            _ => return Wish::Nothing,
        }
        Wish::Draw
    }

    /// By another key from its own end; by the same key the other way round.
    fn sort_by(&mut self, order: ConnectionOrder) {
        self.is_reversed = self.order == order && !self.is_reversed;
        self.order = order;
        self.scroll = 0;
    }

    /// The connections in the order that was chosen, from the first that is shown.
    pub(super) fn rows(&self) -> Vec<&LiveView> {
        let mut rows: Vec<&LiveView> = self.look.iter().flat_map(|look| &look.connections.connections).collect();
        rows.sort_by(|one, other| {
            let ordering = self.compare(one, other);
            let ordering = if self.is_reversed { ordering.reverse() } else { ordering };
            ordering.then(one.connection.number.cmp(&other.connection.number))
        });
        rows.split_off(self.scroll.min(rows.len()))
    }

    /// The largest first: the oldest, the slowest, the busiest, the fullest.
    fn compare(&self, one: &LiveView, other: &LiveView) -> Ordering {
        let (one, other) = (&one.connection, &other.connection);
        match self.order {
            ConnectionOrder::Age => other.age_s.total_cmp(&one.age_s),
            ConnectionOrder::Rtt => other.rtt_ms.unwrap_or(-1.0).total_cmp(&one.rtt_ms.unwrap_or(-1.0)),
            ConnectionOrder::Bytes => self.rate_of(other.number).total_cmp(&self.rate_of(one.number)),
            ConnectionOrder::Queue => other.queued_frames.cmp(&one.queued_frames),
        }
    }

    /// Bytes per second of one connection.
    pub(super) fn rate_of(&self, number: u64) -> f64 {
        self.rates.bytes.get(&number).copied().unwrap_or_default()
    }
}

fn rates(last: &Look, new: &Look, elapsed: Duration) -> Rates {
    // Another process under the same name counts from zero again.
    if new.status.id != last.status.id || new.status.uptime_s < last.status.uptime_s || elapsed.is_zero() {
        return Rates::default();
    }
    let per_second = |last: u64, new: u64| new.saturating_sub(last) as f64 / elapsed.as_secs_f64();
    let (of_last, of_new) = (&last.status.traffic, &new.status.traffic);
    let refused = |look: &Look| look.status.counts.values().sum::<u64>();
    let bytes = |live: &LiveView| live.connection.bytes_sent + live.connection.bytes_received;
    let before: BTreeMap<u64, u64> =
        last.connections.connections.iter().map(|live| (live.connection.number, bytes(live))).collect();
    let of_connection = |live: &LiveView| {
        let last = before.get(&live.connection.number).copied().unwrap_or_default();
        (live.connection.number, per_second(last, bytes(live)))
    };
    Rates {
        published: per_second(of_last.published, of_new.published),
        delivered: per_second(of_last.delivered, of_new.delivered),
        sent: per_second(of_last.sent, of_new.sent),
        refused: per_second(refused(last), refused(new)),
        bytes: new.connections.connections.iter().map(of_connection).collect(),
    }
}
