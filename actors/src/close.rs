//! Why a connection is closed, as the other side reads it: application close codes with a reason text. `[pure]`
//!
//! The numbers are stable and documented in the README. Stock nodes ignore them; our own dialer obeys them
//! (`backoff.rs`). What happened on *our* side is remembered in `history.rs`.

use std::{fmt, time::Duration};

/// The most bytes of a reason text. It travels in one CONNECTION_CLOSE frame beside the packet's other contents.
pub const REASON_BYTES_MAX: usize = 64;

/// The longest pause a remote may ask of us.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

const RETRY_AFTER: &str = " retry_after_ms=";

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal => $name:literal,)+) => {
        /// The application close codes of QUIC connections between nodes. A closed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum CloseCode { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl CloseCode {
            /// Every code, in numerical order.
            pub const ALL: [CloseCode; [$($name),+].len()] = [$(CloseCode::$variant),+];

            /// The stable name: the first word of the reason text, and the label in reports.
            pub fn name(self) -> &'static str {
                match self { $(CloseCode::$variant => $name,)+ }
            }
        }
    };
}

codes! {
    /// Nobody needs the connection any more; everything was written and acknowledged.
    Retired = 0x00 => "retired",
    /// The node is at its cap on connections.
    FullGlobal = 0x10 => "full-global",
    /// The listener that was dialed is at its cap.
    FullListener = 0x11 => "full-listener",
    /// Too many connections from the same address prefix or relay.
    FullPrefix = 0x12 => "full-prefix",
    /// Too many attempts from the same address prefix, or altogether.
    RateLimited = 0x13 => "rate-limited",
    /// Made room for a peer the node knows, or memory or descriptors ran low.
    Evicted = 0x14 => "evicted",
    /// Another connection between the same two nodes is used.
    Superseded = 0x15 => "superseded",
    /// The node does not deal with this remote.
    Denied = 0x16 => "denied",
    /// The node did deal with this remote, and no longer does.
    Revoked = 0x17 => "revoked",
    /// The remote speaks for another network.
    NetworkMismatch = 0x18 => "network-mismatch",
    /// Nothing was said in time after the handshake.
    HelloTimeout = 0x19 => "hello-timeout",
    /// What the remote sent is not the protocol.
    ProtocolViolation = 0x1a => "protocol-violation",
    /// A frame announced more bytes than a frame may have.
    FrameTooLarge = 0x1b => "frame-too-large",
    /// The remote did not read what was sent to it.
    SlowPeer = 0x1c => "slow-peer",
    /// The node is shutting down.
    Draining = 0x1d => "draining",
    /// No topic wanted the connection.
    Idle = 0x1e => "idle",
    /// Something went wrong on the side that closes.
    Internal = 0x1f => "internal",
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u64) -> Option<CloseCode> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }

    /// Whether both sides had finished with each other, so that nothing was lost.
    pub(crate) fn is_orderly(self) -> bool {
        matches!(self, CloseCode::Retired | CloseCode::Superseded | CloseCode::Idle | CloseCode::Draining)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A close as it travels: the code, and how long the remote should wait before it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub code: CloseCode,
    /// When it is worth trying again; at most [`RETRY_AFTER_MAX`] is believed.
    pub retry_after: Option<Duration>,
}

impl Close {
    pub(crate) fn new(code: CloseCode) -> Self {
        Self { code, retry_after: None }
    }

    pub(crate) fn retry_after(code: CloseCode, pause: Duration) -> Self {
        Self { code, retry_after: Some(pause) }
    }

    /// The reason text: the code's name, then the hint in milliseconds.
    pub fn reason(&self) -> String {
        match self.retry_after {
            Some(pause) => format!("{}{RETRY_AFTER}{}", self.code, pause.min(RETRY_AFTER_MAX).as_millis()),
            None => self.code.name().to_owned(),
        }
    }

    /// Reads what another node closed with. `None` for whatever is not one of ours: a stock node closes with 0 and a text
    /// of its own.
    pub fn read(number: u64, reason: &[u8]) -> Option<Close> {
        let code = CloseCode::from_number(number)?;
        let text = std::str::from_utf8(reason.get(..reason.len().min(REASON_BYTES_MAX))?).ok()?;
        let hint = text.strip_prefix(code.name())?;
        let retry_after = match hint.strip_prefix(RETRY_AFTER) {
            Some(millis) => Some(Duration::from_millis(millis.parse().ok()?).min(RETRY_AFTER_MAX)),
            None if hint.is_empty() => None,
            None => return None,
        };
        Some(Close { code, retry_after })
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_close_survives_the_wire_and_fits_it() {
        for code in CloseCode::ALL {
            for retry_after in [None, Some(Duration::from_millis(1500)), Some(Duration::from_secs(9999))] {
                let close = Close { code, retry_after };
                let reason = close.reason();
                assert!(reason.len() <= REASON_BYTES_MAX, "{reason}");
                let believed = retry_after.map(|pause| pause.min(RETRY_AFTER_MAX));
                let read = Close::read(u64::from(code.number()), reason.as_bytes());
                assert_eq!(read, Some(Close { code, retry_after: believed }));
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_not_read_as_ours() {
        assert_eq!(Close::read(0, b"close from disconnect"), None);
        assert_eq!(Close::read(0, b""), None);
        assert_eq!(Close::read(0x10, b"full-listener"), None, "code and text must agree");
        assert_eq!(Close::read(0x10, b"full-global retry_after_ms=soon"), None);
        assert_eq!(Close::read(99, b"retired"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_of_a_remote_panic_or_ask_for_more_than_the_longest_pause(
            number in 0u64..64,
            reason in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Some(close) = Close::read(number, &reason) {
                prop_assert!(close.retry_after.is_none_or(|pause| pause <= RETRY_AFTER_MAX));
            }
        }
    }
}
