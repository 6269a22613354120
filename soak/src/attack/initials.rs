//! First flights: built by letting real clients knock at a socket that only listens, sent from addresses that never
//! answer. To the victim each is a valid Initial of a client it has never seen.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use noq::Endpoint;
use tokio::{
    net::UdpSocket,
    time::{sleep_until, timeout},
};

use super::{identity::Identities, sources::source};

/// Clients that knock at one time while flights are built. Their datagrams fit the default socket buffer of 208 KiB.
const BATCH: usize = 48;

/// A client sends its first flight at once; this long is for a loaded machine.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(5);

/// A paced flood sends in handfuls this often; finer timers are mostly late.
const HANDFUL: Duration = Duration::from_millis(5);

/// Builds `count` first flights, each with a connection id of its own. All that matters to the victim is in them.
pub(super) async fn build(identities: &Identities, count: usize) -> Result<Vec<Vec<u8>>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.context("cannot bind a socket that only listens")?;
    let entrance = sink.local_addr()?;
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).context("cannot bind a client")?;
    // A first flight does not carry the client's key, so one identity can write them all.
    let config = identities.fresh();
    let mut flights = Vec::with_capacity(count);
    let mut seen = HashSet::new();
    let mut datagram = vec![0; 2048];
    while flights.len() < count {
        let batch = BATCH.min(count - flights.len());
        let knocking: Vec<_> = (0..batch)
            .map(|_| endpoint.connect_with(config.clone(), entrance, "stranger.invalid"))
            .collect::<Result<_, _>>()
            .context("a client cannot knock")?;
        let full = flights.len() + batch;
        while flights.len() < full {
            let received = timeout(FLIGHT_TIMEOUT, sink.recv(&mut datagram)).await;
            let size = received.context("a client sent no first flight")??;
            // Retransmissions, and the farewells of clients given up, repeat the connection id.
            if let Some(id) = destination(&datagram[..size])
                && seen.insert(id.to_vec())
            {
                ensure!(size >= 1200, "a first flight of {size} bytes; QUIC pads it to 1200");
                flights.push(datagram[..size].to_vec());
            }
        }
        drop(knocking);
    }
    endpoint.close(0_u32.into(), b"");
    Ok(flights)
}

/// Sends every flight once, spread over `sources` addresses, as fast as it goes or `per_second`. Returns how many the
/// kernel took, and when it was done. Answers are never read.
pub(super) async fn send(
    flights: &[Vec<u8>],
    target: SocketAddr,
    sources: usize,
    per_second: Option<u32>,
) -> Result<usize> {
    let sockets = bind_sources(sources)?;
    let begun = Instant::now();
    let mut sent = 0;
    for (number, flight) in flights.iter().enumerate() {
        if let Some(rate) = per_second {
            let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate.max(1)));
            if due > Instant::now() + HANDFUL {
                sleep_until(due.into()).await;
            }
        }
        // A flood does not wait; a full queue of the kernel's costs it a packet.
        sent += usize::from(sockets[number % sockets.len()].send_to(flight, target).is_ok());
    }
    Ok(sent)
}

/// One socket for each of the first `count` source addresses.
fn bind_sources(count: usize) -> Result<Vec<std::net::UdpSocket>> {
    let bind = |number| {
        let address = source(number);
        let socket = std::net::UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..count.max(1)).map(bind).collect()
}

/// The destination connection id of a long-header packet (RFC 9000, section 17.2), if it is one.
fn destination(datagram: &[u8]) -> Option<&[u8]> {
    let (first, rest) = datagram.split_first()?;
    let length = usize::from(*rest.get(4)?);
    if first & 0x80 == 0 { None } else { rest.get(5..5 + length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn flights_are_whole_and_distinct() {
        let identities = Identities::new(b"/a/1");
        let flights = build(&identities, 100).await.unwrap();
        let ids: HashSet<&[u8]> = flights.iter().map(|flight| destination(flight).unwrap()).collect();
        assert_eq!(ids.len(), 100);
    }

    #[tokio::test]
    async fn a_flood_comes_from_many_addresses() {
        let victim = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let flights = vec![vec![7; 1200]; 30];
        let sent = send(&flights, victim.local_addr().unwrap(), 10, None).await.unwrap();
        assert_eq!(sent, 30);
        let mut froms = HashSet::new();
        let mut datagram = [0; 1500];
        for _ in 0..30 {
            let (size, from) = timeout(FLIGHT_TIMEOUT, victim.recv_from(&mut datagram)).await.unwrap().unwrap();
            assert_eq!(size, 1200);
            froms.insert(from.ip());
        }
        assert_eq!(froms.len(), 10);
    }

    #[test]
    fn short_and_foreign_packets_have_no_destination() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x40, 0, 0, 0, 1, 8]), None);
        assert_eq!(destination(&[0xc0, 0, 0, 0, 1, 8, 1]), None);
        assert_eq!(destination(&[0xc0, 0, 0, 0, 1, 2, 7, 8, 9]), Some(&[7, 8][..]));
    }
}
