//! How often one socket is asked to prove its address. `[pure]`
//!
//! An honest dialer answers the first Retry. A QUIC client that has given up answers every packet with its close (RFC 9000
//! §10.2.1), which looks like a new attempt, is asked again, and so on: 500 of them cost a node 46 000 Retries. So beyond a
//! handful in one second nothing is said.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};

use n0_future::time::Instant;

/// Retries for one socket within [`PERIOD`]. A dialer needs one per attempt, and several identities may share a socket.
const RETRIES_MAX: u8 = 8;

const PERIOD: Duration = Duration::from_secs(1);

/// Two sockets that share a place share their Retries for a second; a lost first packet is repeated after that.
pub(super) const PLACES: usize = 1024;

/// Counts per socket, for the current period only.
pub(super) struct Retries {
    secret: u64,
    since: Instant,
    counts: Box<[u8; PLACES]>,
}

impl Retries {
    /// `secret` keeps others from choosing who shares a place with whom.
    pub(super) fn new(secret: u64, now: Instant) -> Self {
        Self { secret, since: now, counts: Box::new([0; PLACES]) }
    }

    /// Takes one Retry for this socket; false if it has had enough.
    pub(super) fn take(&mut self, addr: SocketAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.counts.fill(0);
        }
        let mut hasher = DefaultHasher::new();
        (self.secret, addr).hash(&mut hasher);
        let count = &mut self.counts[hasher.finish() as usize % PLACES];
        let has_left = *count < RETRIES_MAX;
        *count += u8::from(has_left);
        has_left
    }
}

impl std::fmt::Debug for Retries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retries").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_asked_a_handful_of_times_a_second() {
        let now = Instant::now();
        let mut retries = Retries::new(7, now);
        let (one, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        assert_eq!((0..100).filter(|_| retries.take(one, now)).count(), usize::from(RETRIES_MAX));
        assert!(retries.take(other, now), "each port is somebody else's");
        assert!(retries.take(one, now + PERIOD));
    }
}
