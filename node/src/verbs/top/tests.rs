//! The screen of `top`, drawn onto a terminal that is only memory, and what keys do to it.

use std::{collections::BTreeMap, time::Duration};

use expect_test::{Expect, expect};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    draw::draw,
    view::{Look, View, Wish},
};
use crate::{
    cli::ConnectionOrder,
    control::protocol::{
        ConnectionView, KindView, LedgerView, Status, TrafficView,
        door::{Connections, LiveView},
        topics::TopicView,
    },
};

#[test]
fn the_first_screen_says_that_it_asks() {
    check(
        &view(),
        (40, 3),
        expect![[r#"
        asking the node


    "#]],
    );
}

#[test]
fn one_screen_tells_it_all() {
    let mut view = view();
    view.on_look(look(0), Duration::ZERO);
    view.on_look(look(2), Duration::from_secs(2));
    check(
        &view,
        (100, 20),
        expect![[r#"
        perennial 0.1.0  ae58ff8833  up 1 min 2 s  pressure calm  every 1s
        neighbors 3  peers 4 (2 known)  connections 3 of 128, half-open 1, high water 7
        messages  1.0/s published  5.0/s delivered  20/s sent   refused 2.0/s
        memory    34.0 MiB resident, heap unknown   descriptors 31   queued 66 out, 2 in
        ledger    0 orphans  connection 3  topic 2

        TOPIC                NEIGHBORS CONTACTS QUEUED RESTARTS
        chat                         3        5      1        0
        news                         1        3      1        0

        CONN   PEER       STANDING SIDE     AGEv          RTT      QUEUED  BYTES/S  PATH
        3      3f2c58ff88 known    accepted 50.0 s        1.5 ms   0       100 B    127.0.0.1:4433
        4      4f2c58ff88 known    dialed   40.0 s        0.2 ms   2       9000 B   127.0.0.1:4433
        9      9f2c58ff88 known    accepted 7.0 s         120.0 ms 64      0 B      127.0.0.1:4433





        q quit  a age  t rtt  b bytes  u queue  r reverse  p pause  up/down scroll
    "#]],
    );
}

#[test]
fn a_small_terminal_keeps_the_help_and_loses_connections() {
    let mut view = view();
    view.on_look(look(1), Duration::ZERO);
    check(
        &view,
        (72, 12),
        expect![[r#"
        perennial 0.1.0  ae58ff8833  up 1 min 1 s  pressure calm  every 1s
        neighbors 3  peers 4 (2 known)  connections 3 of 128, half-open 1, high
        messages  0.0/s published  0.0/s delivered  0.0/s sent   refused 0.0/s
        memory    34.0 MiB resident, heap unknown   descriptors 31   queued 66 o
        ledger    0 orphans  connection 3  topic 2

        TOPIC                NEIGHBORS CONTACTS QUEUED RESTARTS
        chat                         3        5      1        0
        news                         1        3      1        0

        CONN   PEER    STANDIN SIDE    AGEv    RTT     QUEUED  BYTES/S  PATH
        q quit  a age  t rtt  b bytes  u queue  r reverse  p pause  up/down scro
    "#]],
    );
    // Nothing panics however small it gets.
    for (width, height) in [(1, 1), (10, 2), (200, 5), (3, 60)] {
        screen(&view, (width, height));
    }
}

#[test]
fn a_node_that_does_not_answer_is_told_below_what_was_last_seen() {
    let mut view = view();
    view.on_look(look(1), Duration::ZERO);
    view.on_trouble("the node did not answer".into());
    let lines = screen(&view, (72, 20));
    assert!(lines.contains("ae58ff8833") && lines.contains("the node did not answer"), "{lines}");
    view.on_look(look(2), Duration::from_secs(1));
    assert!(!screen(&view, (72, 20)).contains("did not answer"));
}

#[test]
fn keys_sort_turn_round_scroll_pause_and_quit() {
    let mut view = view();
    view.on_look(look(0), Duration::ZERO);
    view.on_look(look(1), Duration::from_secs(1));
    let numbers = |view: &View| view.rows().iter().map(|live| live.connection.number).collect::<Vec<_>>();
    assert_eq!(numbers(&view), [3, 4, 9], "the oldest first");
    for (key, order) in [('t', [9, 3, 4]), ('b', [4, 3, 9]), ('u', [9, 4, 3]), ('u', [3, 4, 9]), ('a', [3, 4, 9])] {
        assert_eq!(press(&mut view, KeyCode::Char(key)), Wish::Draw);
        assert_eq!(numbers(&view), order, "{key}");
    }
    press(&mut view, KeyCode::Char('r'));
    assert_eq!(numbers(&view), [9, 4, 3]);
    press(&mut view, KeyCode::Down);
    assert_eq!(numbers(&view), [4, 3]);
    press(&mut view, KeyCode::End);
    assert_eq!(numbers(&view), [3], "the last one stays in sight");
    press(&mut view, KeyCode::PageUp);
    assert_eq!(numbers(&view), [9, 4, 3]);

    press(&mut view, KeyCode::Char('p'));
    view.on_look(look(50), Duration::from_secs(50));
    assert!(screen(&view, (100, 20)).contains("up 1 min 1 s"), "paused");
    press(&mut view, KeyCode::Char('p'));
    view.on_look(look(50), Duration::from_secs(50));
    assert!(screen(&view, (100, 20)).contains("up 1 min 50 s"));

    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.on_key(interrupt), Wish::Quit);
    assert_eq!(press(&mut view, KeyCode::Char('c')), Wish::Nothing);
    assert_eq!([KeyCode::Char('q'), KeyCode::Esc].map(|key| press(&mut view, key)), [Wish::Quit; 2]);
}

#[test]
fn rates_begin_anew_with_another_life_of_the_node() {
    let mut view = view();
    view.on_look(look(10), Duration::ZERO);
    view.on_look(look(12), Duration::from_secs(2));
    assert_eq!((view.rates.published, view.rates.delivered), (1.0, 5.0));
    view.on_look(look(1), Duration::from_secs(2));
    assert_eq!(view.rates, Default::default(), "it was restarted");
}

#[test]
fn without_colour_nothing_is_coloured() {
    let coloured = |has_colour: bool| {
        let mut view = View::new(Duration::from_secs(1), ConnectionOrder::Age, has_colour);
        view.on_look(look(1), Duration::ZERO);
        let mut terminal = Terminal::new(TestBackend::new(80, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let cells = &terminal.backend().buffer().content;
        cells.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert!(coloured(true) > 0);
    assert_eq!(coloured(false), 0);
}

fn view() -> View {
    View::new(Duration::from_secs(1), ConnectionOrder::Age, false)
}

fn press(view: &mut View, key: KeyCode) -> Wish {
    view.on_key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn check(view: &View, size: (u16, u16), expected: Expect) {
    expected.assert_eq(&screen(view, size));
}

/// The screen without the blanks at the ends of its lines.
fn screen(view: &View, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

/// The node a minute and `seconds` after its start: one message a second published, five delivered.
fn look(seconds: u64) -> Look {
    let topic = |name: &str, neighbors: usize| TopicView {
        topic: "07".repeat(32),
        name: Some(name.into()),
        neighbors: vec!["9f2c58ff8833241ac8".into(); neighbors],
        contacts: neighbors + 2,
        queued_frames: 1,
        restarts: 0,
    };
    let kind = |kind: &str, owned| KindView { kind: kind.into(), spawned: owned, finished: 0, owned, orphans: 0 };
    let kinds = vec![kind("connection", 3), kind("dial", 0), kind("topic", 2)];
    Look {
        status: Status {
            degraded: Vec::new(),
            v: 1,
            id: "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6".into(),
            version: "0.1.0".into(),
            uptime_s: 60.0 + seconds as f64,
            self_probe: None,
            listen: vec!["127.0.0.1:4433".into()],
            topics: vec![topic("chat", 3), topic("news", 1)],
            neighbors: 3,
            connections: 3,
            connections_high_water: 7,
            half_open: 1,
            connection_cap: 128,
            peers: 4,
            peers_known: 2,
            addresses: 9,
            pressure: "calm".into(),
            orphans: 0,
            rss_bytes: Some(34 << 20),
            heap_bytes: None,
            heap_blocks: None,
            open_fds: Some(31),
            alive_tasks: 40,
            panics: 0,
            crashes: BTreeMap::new(),
            stores: Vec::new(),
            counts: BTreeMap::from([("inbox-full".into(), 2 * seconds), ("denied".into(), 5)]),
            traffic: TrafficView { published: seconds, delivered: 5 * seconds, sent: 20 * seconds },
        },
        connections: Connections {
            v: 1,
            connections: vec![
                live(3, "accepted", 50.0, Some(1.5), 0, 100 * seconds),
                live(4, "dialed", 40.0, Some(0.25), 2, 9000 * seconds),
                live(9, "accepted", 7.0, Some(120.0), 64, 0),
            ],
            lingering: Vec::new(),
        },
        ledger: LedgerView { v: 1, orphans: 0, kinds, retirements: None },
    }
}

fn live(number: u64, side: &str, age_s: f64, rtt_ms: Option<f64>, queued_frames: usize, bytes: u64) -> LiveView {
    let connection = ConnectionView {
        number,
        side: side.into(),
        protocol: "perennial".into(),
        age_s,
        leases: 1,
        queued_frames,
        phase: "open".into(),
        departed_s: None,
        bytes_sent: bytes / 2,
        bytes_received: bytes / 2,
        path: Some("127.0.0.1:4433".into()),
        rtt_ms,
    };
    LiveView { peer: format!("{number}f2c58ff8833241ac8"), standing: "known".into(), connection }
}
