//! Limits, connections and how connections ended, for people. `[pure]`

use super::{align_right, amount, table, text, uptime};
use crate::{
    control::protocol::door::{ClosedConnections, Connections, LimitsView, LingeringView},
    names::short,
};

/// One page: caps, listeners, what was refused.
pub(crate) fn limits(limits: &LimitsView) -> String {
    let mut caps = table(["limit", "in use", "high water", "max"]);
    for limit in &limits.limits {
        caps.add_row([
            limit.name.clone(),
            limit.in_use.to_string(),
            limit.high_water.map_or("-".into(), |most| most.to_string()),
            limit.max.to_string(),
        ]);
    }
    align_right(&mut caps, 1..4);
    let mut listeners = table(["listener", "in use", "high water", "max", "accepting", "resumed"]);
    for listener in &limits.listeners {
        listeners.add_row([
            listener.name.clone(),
            listener.in_use.to_string(),
            listener.high_water.to_string(),
            listener.max.to_string(),
            if listener.accepting { "yes".into() } else { "no".into() },
            listener.resumed.to_string(),
        ]);
    }
    align_right(&mut listeners, 1..4);
    align_right(&mut listeners, 5..6);
    let mut clients = table(["clients", "in use", "high water", "max", "full", "resumed"]);
    for one in &limits.clients {
        clients.add_row([
            one.name.clone(),
            one.in_use.to_string(),
            one.high_water.to_string(),
            one.max.to_string(),
            if one.at_capacity { "yes".into() } else { "no".into() },
            one.resumed.to_string(),
        ]);
    }
    align_right(&mut clients, 1..4);
    align_right(&mut clients, 5..6);
    let pressure = format!(" pressure {}", limits.pressure);
    [text(&caps), text(&listeners), text(&clients), refusals(limits), pressure].join("\n\n")
}

fn refusals(limits: &LimitsView) -> String {
    let counted = limits.refusals.iter().filter(|(_, count)| **count > 0);
    let mut rows = table(["refused", "times"]);
    for (reason, count) in counted {
        rows.add_row([reason.clone(), count.to_string()]);
    }
    if rows.is_empty() {
        return " nothing was refused".into();
    }
    align_right(&mut rows, 1..2);
    text(&rows)
}

/// One row per live connection.
pub(crate) fn connections(live: &Connections) -> String {
    if live.connections.is_empty() && live.lingering.is_empty() {
        return " no connections".into();
    }
    let mut rows = table(["connection", "peer", "standing", "side", "protocol", "age", "rtt", "path"]);
    for live in &live.connections {
        let connection = &live.connection;
        rows.add_row([
            connection.number.to_string(),
            short(&live.peer),
            live.standing.clone(),
            connection.side.clone(),
            connection.protocol.clone(),
            uptime(connection.age_s),
            connection.rtt_ms.map_or("-".into(), |rtt| format!("{rtt} ms")),
            connection.path.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    align_right(&mut rows, 0..1);
    align_right(&mut rows, 5..7);
    let ending = ending(live);
    if ending.is_empty() { text(&rows) } else { format!("{}\n\n{ending}", text(&rows)) }
}

/// One line per connection that is to end and has not.
fn ending(live: &Connections) -> String {
    let line = |one: &LingeringView| {
        let departure = one.departure.as_ref()?;
        let (number, phase, age) = (one.number, &one.phase, uptime(one.departed_s.unwrap_or_default()));
        Some(format!(" connection {number} to {} is ending: {departure} {age} ago, {phase}", short(&one.peer)))
    };
    live.lingering.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// One row per connection that ended, and how many there were in all.
pub(crate) fn closed_connections(closed: &ClosedConnections) -> String {
    if closed.connections.is_empty() {
        return " no connection has ended yet".into();
    }
    let mut rows = table(["connection", "peer", "side", "by", "cause", "age", "sent", "received", "ago", "detail"]);
    for closed in &closed.connections {
        let cause = match closed.code {
            Some(code) if code > 0 => format!("{} {code:#04x}", closed.cause),
            Some(_) | None => closed.cause.clone(),
        };
        // The cause is all there is to say where the detail repeats it.
        let detail = if closed.detail == closed.cause { String::new() } else { closed.detail.clone() };
        rows.add_row([
            closed.number.to_string(),
            short(&closed.peer),
            closed.side.clone(),
            closed.closed_by.clone(),
            cause,
            uptime(closed.age_s),
            amount(closed.bytes_sent),
            amount(closed.bytes_received),
            uptime(closed.ended_s_ago),
            detail,
        ]);
    }
    align_right(&mut rows, 0..1);
    align_right(&mut rows, 5..9);
    let shown = closed.connections.len();
    format!("{}\n the last {shown} of {} that ended since the start", text(&rows), closed.total)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::protocol::door::{ClientsView, ClosedView, LimitView, ListenerView};

    #[test]
    fn limits_are_one_page_without_the_zeros() {
        let limit = |name: &str, in_use, high_water| LimitView { name: name.into(), max: 128, in_use, high_water };
        let view = LimitsView {
            v: 1,
            pressure: "calm".into(),
            limits: vec![limit("connections_max", 3, Some(12)), limit("topics_max", 1, None)],
            listeners: vec![ListenerView {
                name: "127.0.0.1:7".into(),
                max: 2,
                in_use: 2,
                high_water: 2,
                accepting: false,
                resumed: 1,
            }],
            refusals: BTreeMap::from([("denied".into(), 0), ("evicted".into(), 2)]),
            clients: vec![ClientsView {
                name: "control".into(),
                max: 16,
                in_use: 1,
                high_water: 16,
                accepted: 40,
                resumed: 3,
                at_capacity: false,
            }],
        };
        assert_eq!(
            limits(&view),
            " limit            in use  high water  max
 connections_max       3          12  128
 topics_max            1           -  128

 listener     in use  high water  max  accepting  resumed
 127.0.0.1:7       2           2    2  no               1

 clients  in use  high water  max  full  resumed
 control       1          16   16  no          3

 refused  times
 evicted      2

 pressure calm"
        );
    }

    #[test]
    fn a_connection_that_is_ending_is_named_with_its_step_and_one_outside_the_view_is_not() {
        let lingering = |number, departure: Option<&str>| LingeringView {
            number,
            peer: "9f2c58ff8833241ac8".into(),
            phase: "acknowledgements".into(),
            departure: departure.map(str::to_owned),
            departed_s: departure.map(|_| 212.0),
            outside_view_s: Some(212.0),
        };
        let live = Connections {
            v: 1,
            connections: Vec::new(),
            lingering: vec![lingering(31, Some("let-go")), lingering(32, None)],
        };
        assert_eq!(ending(&live), " connection 31 to 9f2c58ff88 is ending: let-go 3 min 32 s ago, acknowledgements");
    }

    #[test]
    fn how_connections_ended_is_a_row_each_and_a_sum() {
        let closed = ClosedView {
            number: 4,
            peer: "ae58ff8833241ac8".into(),
            side: "accepted".into(),
            closed_by: "us".into(),
            cause: "denied".into(),
            code: Some(0x16),
            detail: "denied".into(),
            age_s: 61.0,
            bytes_sent: 900,
            bytes_received: 20_480,
            ended_s_ago: 2.0,
        };
        let view = ClosedConnections { v: 1, total: 7, connections: vec![closed] };
        assert_eq!(
            closed_connections(&view),
            " connection  peer        side      by  cause              age   sent  received    ago  detail
          4  ae58ff8833  accepted  us  denied 0x16  1 min 1 s  900 B    20 KiB  2.0 s
 the last 1 of 7 that ended since the start"
        );
        assert_eq!([amount(9_999), amount(10 << 20), amount(3 << 30)], ["9999 B", "10 MiB", "3072 MiB"]);
    }
}
