//! The screen of `top`: a view onto a frame, nothing else. `[pure]`

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::view::{Look, View};
use crate::{
    cli::ConnectionOrder,
    control::protocol::{KindView, Status, door::LiveView, topics::TopicView},
    names::short,
    tables::{amount, bytes, uptime},
};

/// Topics shown; the rest is a number.
const TOPICS_MAX: usize = 5;

const HELP: &str = "q quit  a age  t rtt  b bytes  u queue  r reverse  p pause  up/down scroll";

/// Draws the whole screen. What does not fit is left out from the bottom of the table, never the help.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let paint = Paint { has_colour: view.has_colour };
    let Some(look) = &view.look else {
        let sentence = view.trouble.as_deref().unwrap_or("asking the node");
        return frame.render_widget(Paragraph::new(sentence), frame.area());
    };
    let topics = topics(look, &paint);
    let [facts_area, topics_area, table_area, help_area] = Layout::vertical([
        Constraint::Length(6),
        Constraint::Length(topics.len() as u16 + 1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(facts(look, view, &paint)), facts_area);
    frame.render_widget(Paragraph::new(topics), topics_area);
    draw_connections(frame, table_area, view, &paint);
    let last = match &view.trouble {
        Some(sentence) => Line::styled(sentence.clone(), paint.bad()),
        None => Line::styled(HELP, paint.dim()),
    };
    frame.render_widget(Paragraph::new(last), help_area);
}

/// Colours, where they are wanted.
struct Paint {
    has_colour: bool,
}

impl Paint {
    fn colour(&self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(&self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn good(&self) -> Style {
        self.colour(Color::Green)
    }

    fn dim(&self) -> Style {
        self.colour(Color::DarkGray)
    }

    /// For what should be zero.
    fn zero(&self, is_zero: bool) -> Style {
        if is_zero { self.good() } else { self.bad() }
    }

    fn head(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}

fn facts<'a>(look: &'a Look, view: &'a View, paint: &Paint) -> Vec<Line<'a>> {
    let Status { id, version, uptime_s, pressure, orphans, .. } = &look.status;
    let status = &look.status;
    let rates = &view.rates;
    let outboxes: usize = look.connections.connections.iter().map(|live| live.connection.queued_frames).sum();
    let inboxes: usize = status.topics.iter().map(|topic| topic.queued_frames).sum();
    let pace = if view.is_paused { "paused".into() } else { format!("every {:?}", view.interval) };
    vec![
        Line::from(vec![
            Span::styled(format!("perennial {version}"), paint.head()),
            Span::raw(format!("  {}  up {}  pressure ", short(id), uptime(*uptime_s))),
            Span::styled(pressure.as_str(), paint.zero(pressure == "calm")),
            Span::styled(format!("  {pace}"), paint.dim()),
        ]),
        Line::raw(format!(
            "neighbors {}  peers {} ({} known)  connections {} of {}, half-open {}, high water {}",
            status.neighbors,
            status.peers,
            status.peers_known,
            status.connections,
            status.connection_cap,
            status.half_open,
            status.connections_high_water
        )),
        Line::raw(format!(
            "messages  {}/s published  {}/s delivered  {}/s sent   refused {}/s",
            rate(rates.published),
            rate(rates.delivered),
            rate(rates.sent),
            rate(rates.refused)
        )),
        Line::raw(format!(
            "memory    {} resident, heap {}   descriptors {}   queued {outboxes} out, {inboxes} in",
            bytes(status.rss_bytes),
            bytes(status.heap_bytes),
            status.open_fds.map_or("unknown".into(), |fds| fds.to_string())
        )),
        Line::from(vec![
            Span::raw("ledger    "),
            Span::styled(format!("{orphans} orphans"), paint.zero(*orphans == 0)),
            Span::raw(owned(&look.ledger.kinds)),
        ]),
        Line::raw(""),
    ]
}

/// The kinds of task that there are at this moment.
fn owned(kinds: &[KindView]) -> String {
    let alive = kinds.iter().filter(|kind| kind.owned > 0);
    alive.map(|kind| format!("  {} {}", kind.kind, kind.owned)).collect()
}

fn topics<'a>(look: &'a Look, paint: &Paint) -> Vec<Line<'a>> {
    let topics = &look.status.topics;
    if topics.is_empty() {
        return vec![Line::raw("no topic is joined")];
    }
    let name = |topic: &'a TopicView| topic.name.clone().unwrap_or_else(|| short(&topic.topic));
    let head = format!("{:<20} {:>9} {:>8} {:>6} {:>8}", "TOPIC", "NEIGHBORS", "CONTACTS", "QUEUED", "RESTARTS");
    let mut lines = vec![Line::styled(head, paint.head())];
    lines.extend(topics.iter().take(TOPICS_MAX).map(|topic| {
        let (neighbors, TopicView { contacts, queued_frames, restarts, .. }) = (topic.neighbors.len(), topic);
        Line::raw(format!("{:<20.20} {neighbors:>9} {contacts:>8} {queued_frames:>6} {restarts:>8}", name(topic)))
    }));
    if topics.len() > TOPICS_MAX {
        lines.push(Line::styled(format!("and {} more topics", topics.len() - TOPICS_MAX), paint.dim()));
    }
    lines
}

fn draw_connections(frame: &mut Frame<'_>, area: Rect, view: &View, paint: &Paint) {
    let arrow = if view.is_reversed { "^" } else { "v" };
    let head = |name: &str, order: Option<ConnectionOrder>| match order == Some(view.order) {
        true => Cell::from(format!("{name}{arrow}")),
        false => Cell::from(name.to_owned()),
    };
    let header = Row::new([
        head("CONN", None),
        head("PEER", None),
        head("STANDING", None),
        head("SIDE", None),
        head("AGE", Some(ConnectionOrder::Age)),
        head("RTT", Some(ConnectionOrder::Rtt)),
        head("QUEUED", Some(ConnectionOrder::Queue)),
        head("BYTES/S", Some(ConnectionOrder::Bytes)),
        head("PATH", None),
    ]);
    let widths = [6, 10, 8, 8, 13, 8, 7, 8].map(Constraint::Length).into_iter().chain([Constraint::Min(8)]);
    let rows = view.rows().into_iter().map(|live| connection(live, view));
    frame.render_widget(Table::new(rows, widths).header(header.style(paint.head())), area);
}

fn connection<'a>(live: &LiveView, view: &View) -> Row<'a> {
    let connection = &live.connection;
    Row::new([
        connection.number.to_string(),
        short(&live.peer),
        live.standing.clone(),
        connection.side.clone(),
        uptime(connection.age_s),
        connection.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")),
        connection.queued_frames.to_string(),
        amount(view.rate_of(connection.number) as u64),
        connection.path.clone().unwrap_or_else(|| "-".into()),
    ])
}

/// Two digits are enough to see a trend.
fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}
