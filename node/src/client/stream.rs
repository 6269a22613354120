//! Reading the events of a topic: server-sent events, put together from whatever pieces arrive. `[pure]`
//!
//! Who connects and how long is waited is in `client/api.rs`.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name, such as `message`.
    pub(crate) name: String,
    /// One JSON object, as standard output would carry it.
    pub(crate) data: String,
}

/// The longest event: a message of the most bytes, escaped, with room to spare.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// The bytes of an event that has not ended.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<u8>);

impl Pieces {
    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole event, comments left out.
    ///
    /// # Errors
    ///
    /// Of an event that is too long, or no text.
    pub(super) fn take(&mut self) -> Result<Option<Event>, String> {
        while let Some(end) = self.0.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.0.drain(..end + 2).collect();
            let block = String::from_utf8(block).map_err(|_| "an event that is no text came".to_owned())?;
            if let Some(event) = read(&block) {
                return Ok(Some(event));
            }
        }
        match self.0.len() {
            waiting if waiting > EVENT_BYTES_MAX => Err(format!("an event exceeds {EVENT_BYTES_MAX} bytes")),
            _ => Ok(None),
        }
    }
}

fn read(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
    };
    let data = field("data");
    (!data.is_empty()).then(|| Event { name: field("event"), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_in_whatever_pieces_they_arrive() {
        let text = ": hello\n\nevent: message\ndata: {\"v\":1}\n\n:\n\nevent: closed\ndata:{}\n\n";
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        for size in 1..=text.len() {
            let (mut pieces, mut events) = (Pieces::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                pieces.push(piece);
                while let Some(event) = pieces.take().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, [event("message", r#"{"v":1}"#), event("closed", "{}")], "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_an_error_and_not_a_leak() {
        let mut pieces = Pieces::default();
        pieces.push(&vec![b'x'; EVENT_BYTES_MAX]);
        assert_eq!(pieces.take(), Ok(None));
        pieces.push(b"x");
        assert!(pieces.take().unwrap_err().contains("exceeds 65536"));
    }
}
