//! Frames to bytes and back, with every size checked before anything is allocated for it. `[pure]`
//!
//! This is the only place that knows how a stream is cut into frames. What a frame *says*, and whether it may enter,
//! is decided in [`inspect`]; reading from and writing to real streams is the connection loop's work.
//!
//! A stream is `frame(topic) frame(message)* FIN`, a frame is a `u32` in network order followed by that many bytes of
//! postcard: exactly stock iroh-gossip 0.101.

pub(crate) mod addr;
pub(crate) mod dress;
pub(crate) mod inspect;
mod mirror;
pub(crate) mod tree;

use bytes::{Buf, Bytes, BytesMut};
use iroh::EndpointId;
use iroh_gossip::proto::{DeliveryScope, TopicId, state::MessageKind};

use crate::{counters::Reason, limits::FRAME_MAX};

/// The protocol of stock iroh-gossip.
pub(crate) const ALPN_STOCK: &[u8] = b"/iroh-gossip/1";

/// The same frames between two nodes that both know how to settle a simultaneous dial.
pub(crate) const ALPN_PERENNIAL: &[u8] = b"/perennial/1";

/// A message of the gossip protocol, for one topic.
pub(crate) type ProtoMessage = iroh_gossip::proto::topic::Message<EndpointId>;

/// What a message is for, as far as queues and dials care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Content: may be dropped, Plumtree repairs it.
    Payload,
    /// IHave, Graft, Prune: about content, and never worth a dial.
    Announce,
    /// Views and neighbours: worth a dial, never dropped for room.
    Membership,
    /// The last message to a peer on a topic.
    Disconnect,
}

/// The class of a decoded message.
pub(crate) fn classify(message: &ProtoMessage) -> Class {
    match message {
        ProtoMessage::Swarm(_) if message.is_disconnect() => Class::Disconnect,
        ProtoMessage::Swarm(_) => Class::Membership,
        ProtoMessage::Gossip(_) => match message.kind() {
            MessageKind::Data => Class::Payload,
            MessageKind::Control => Class::Announce,
        },
    }
}

/// Whether an encoded Swarm message is one the protocol repeats by itself: ForwardJoin, Shuffle, ShuffleReply.
pub(crate) fn is_expendable(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, 0, 1..=3, ..])
}

/// A message that must not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncodeError {
    /// Stock could read a body of exactly [`FRAME_MAX`] but never writes one; neither do we.
    #[error("message of {size} bytes does not fit a frame; it must be below {FRAME_MAX}")]
    TooLarge { size: usize },
}

/// The first frame of a stream: which topic the rest is about.
pub(crate) fn encode_header(topic: TopicId) -> [u8; 36] {
    let mut frame = [0; 36];
    frame[3] = 32;
    frame[4..].copy_from_slice(topic.as_bytes());
    frame
}

/// One frame, length included, in one allocation.
pub(crate) fn encode(message: &ProtoMessage) -> Result<Bytes, EncodeError> {
    encode_frame(message)
}

fn encode_frame(body: &impl serde::Serialize) -> Result<Bytes, EncodeError> {
    let size = body_size(body);
    if size >= FRAME_MAX {
        return Err(EncodeError::TooLarge { size });
    }
    let mut frame = vec![0; LENGTH + size];
    frame[..LENGTH].copy_from_slice(&(size as u32).to_be_bytes());
    let written = postcard::to_slice(body, &mut frame[LENGTH..]).expect("the size was measured on the same value");
    assert_eq!(written.len(), size, "a frame must be as long as it says");
    Ok(frame.into())
}

fn body_size(body: &impl serde::Serialize) -> usize {
    postcard::serialize_with_flavor(body, postcard::ser_flavors::Size::default())
        .expect("messages hold nothing postcard cannot write")
}

/// The bytes of a frame's length.
const LENGTH: usize = 4;

/// What makes a stream unreadable from here on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame of {size} bytes exceeds {FRAME_MAX}")]
    TooLarge { size: usize },
    #[error("stream ended after {got} of {size} bytes of a frame")]
    Unfinished { got: usize, size: usize },
    #[error("stream header of {size} bytes; a topic has 32")]
    HeaderTooShort { size: usize },
}

impl FrameError {
    /// The counter this belongs on.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::FrameTooLarge,
            Self::Unfinished { .. } => Reason::FrameUnfinished,
            Self::HeaderTooShort { .. } => Reason::HeaderMissing,
        }
    }
}

/// The topic named by a stream's first frame. Bytes after it are ignored, as stock does: a later version may use them.
pub(crate) fn decode_header(body: &[u8]) -> Result<TopicId, FrameError> {
    match body.first_chunk::<32>() {
        Some(topic) => Ok(TopicId::from_bytes(*topic)),
        None => Err(FrameError::HeaderTooShort { size: body.len() }),
    }
}

/// Cuts a stream's bytes into frames, in whatever pieces they arrive.
///
/// Everything half-read stays in here, so the future that waits for more bytes may lose any race. Between frames the
/// reader holds no memory; inside one it holds at most that frame and the chunk it came in.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// Bytes that arrived and were not looked at yet. Frames wholly inside are split off without copying.
    chunk: Bytes,
    /// The start of a frame, length included, whose rest is not here yet.
    partial: BytesMut,
}

impl FrameReader {
    /// Adds what the stream yielded. Call [`FrameReader::next`] until it has no more before filling again.
    pub(crate) fn fill(&mut self, chunk: impl Into<Bytes>) {
        let chunk = chunk.into();
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [&self.chunk[..], &chunk[..]].concat().into();
        }
    }

    /// The body of the next whole frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] as soon as the length is known, and on every later call.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty()
            && let Some(size) = announced_size(&self.chunk)?
            && self.chunk.len() >= LENGTH + size
        {
            self.chunk.advance(LENGTH);
            let body = self.chunk.split_to(size);
            self.let_go();
            return Ok(Some(body));
        }
        self.take(LENGTH);
        let Some(size) = announced_size(&self.partial)? else { return Ok(None) };
        self.take(LENGTH + size);
        if self.partial.len() < LENGTH + size {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.partial).freeze();
        body.advance(LENGTH);
        Ok(Some(body))
    }

    /// Whether some bytes of a frame are here, but not all.
    pub(crate) fn mid_frame(&self) -> bool {
        !self.is_empty()
    }

    /// Whether the reader stands between two frames and holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_empty()
    }

    /// The stream has ended. Stock takes an end inside the four length bytes for a clean one, and so do we.
    ///
    /// # Errors
    ///
    /// [`FrameError::Unfinished`] if it ended inside a body.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        match announced_size(&self.partial)? {
            Some(size) => Err(FrameError::Unfinished { got: self.partial.len() - LENGTH, size }),
            None => Ok(()),
        }
    }

    /// Moves bytes from the chunk until `partial` has `len` of them, or the chunk is used up.
    fn take(&mut self, len: usize) {
        if self.chunk.is_empty() {
            return;
        }
        let missing = len.saturating_sub(self.partial.len());
        self.partial.reserve(missing);
        let piece = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&piece);
        self.let_go();
    }

    /// An empty `Bytes` may still hold its buffer; an idle stream must not.
    fn let_go(&mut self) {
        if self.chunk.is_empty() {
            self.chunk = Bytes::new();
        }
    }
}

fn announced_size(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let size = u32::from_be_bytes(*length) as usize;
    if size > FRAME_MAX { Err(FrameError::TooLarge { size }) } else { Ok(Some(size)) }
}

/// What a peer that is no neighbour is told before we part, as a frame: an empty ShuffleReply.
///
/// A stock peer answers it by forgetting the connection while keeping us in its passive view, so it can dial again. A
/// Disconnect would leave residue in its maps.
pub(crate) fn farewell_frame() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 3, 0, 3, 0])
}

/// What the other side reads in [`farewell_frame`].
#[cfg(test)]
pub(crate) fn farewell() -> ProtoMessage {
    postcard::from_bytes(&[0, 3, 0]).expect("an empty ShuffleReply is well-formed")
}

/// The first message of a peer that enters a topic, as it looks after inspection.
pub(crate) fn join() -> ProtoMessage {
    postcard::from_bytes(&[0, 0, 0]).expect("a Join without data is well-formed")
}

/// A polite request to become neighbours, which a remote with a full view may refuse.
pub(crate) fn neighbor_request() -> ProtoMessage {
    postcard::from_bytes(&[0, 4, 1, 0]).expect("a Neighbor of low priority is well-formed")
}

/// Whether this is a Neighbor, request or answer, without data.
pub(crate) fn is_neighbor(message: &ProtoMessage) -> bool {
    let mut body = [0; 4];
    matches!(message, ProtoMessage::Swarm(_)) && matches!(postcard::to_slice(message, &mut body), Ok([0, 4, 0 | 1, 0]))
}

/// The last message to a neighbour on a topic; `alive` keeps us in its passive view.
pub(crate) fn disconnect(alive: bool) -> ProtoMessage {
    postcard::from_bytes(&[0, 5, alive.into(), 0]).expect("a Disconnect is well-formed")
}

/// How far a message has come. `Round` hides its number, but its postcard form is public: variant 0, then a varint.
pub(crate) fn hops_of(scope: &DeliveryScope) -> u16 {
    let mut buffer = [0; 4];
    match postcard::to_slice(scope, &mut buffer) {
        Ok([0, round @ ..]) => postcard::from_bytes(round).unwrap_or(0),
        Ok(_) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_names_its_topic_and_may_say_more() {
        let frame = encode_header(TopicId::from_bytes([7; 32]));
        assert_eq!(frame[..4], [0, 0, 0, 32]);
        assert_eq!(decode_header(&frame[4..]), Ok(TopicId::from_bytes([7; 32])));
        assert_eq!(decode_header(&[7; 40]), Ok(TopicId::from_bytes([7; 32])));
        assert_eq!(decode_header(&[7; 31]), Err(FrameError::HeaderTooShort { size: 31 }));
    }

    #[test]
    fn the_farewell_and_the_disconnects_are_the_documented_bytes() {
        assert_eq!(encode(&farewell()), Ok(farewell_frame()));
        assert_eq!(encode(&farewell()).unwrap()[..], [0, 0, 0, 3, 0, 3, 0]);
        assert_eq!(encode(&disconnect(false)).unwrap()[..], [0, 0, 0, 4, 0, 5, 0, 0]);
        assert_eq!(encode(&disconnect(true)).unwrap()[..], [0, 0, 0, 4, 0, 5, 1, 0]);
    }

    #[test]
    fn a_body_of_frame_max_is_read_but_never_written() {
        let content = |len: usize| (1u8, 0u8, [9u8; 32], vec![0u8; len], 1u8);
        let largest: ProtoMessage = postcard::from_bytes(&postcard::to_stdvec(&content(4058)).unwrap()).unwrap();
        assert_eq!(encode(&largest).unwrap().len(), LENGTH + FRAME_MAX - 1);
        let over: ProtoMessage = postcard::from_bytes(&postcard::to_stdvec(&content(4059)).unwrap()).unwrap();
        assert_eq!(encode(&over), Err(EncodeError::TooLarge { size: FRAME_MAX }));

        let mut reader = FrameReader::default();
        reader.fill(frame(&[1; FRAME_MAX]));
        assert_eq!(reader.next().unwrap().unwrap().len(), FRAME_MAX);
    }

    #[test]
    fn an_oversize_length_is_refused_before_its_payload() {
        for pieces in [1, 4] {
            let mut reader = FrameReader::default();
            let mut refused = None;
            for piece in u32::MAX.to_be_bytes().chunks(pieces) {
                reader.fill(Bytes::copy_from_slice(piece));
                refused = reader.next().err();
            }
            assert_eq!(refused, Some(FrameError::TooLarge { size: u32::MAX as usize }));
            assert!(reader.partial.capacity() < 100, "{}", reader.partial.capacity());
            assert!(reader.next().is_err(), "an unreadable stream stays unreadable");
        }
    }

    #[test]
    fn an_end_inside_the_length_is_clean_and_inside_the_body_is_not() {
        let bytes = frame(b"abc");
        for len in 0..bytes.len() {
            let mut reader = FrameReader::default();
            reader.fill(bytes.slice(..len));
            assert_eq!(reader.next(), Ok(None));
            assert_eq!(reader.mid_frame(), len > 0);
            let expected = if len < 4 { Ok(()) } else { Err(FrameError::Unfinished { got: len - 4, size: 3 }) };
            assert_eq!(reader.end(), expected, "after {len} bytes");
        }
    }

    #[test]
    fn a_reader_between_frames_holds_nothing() {
        let mut reader = FrameReader::default();
        let whole = frame(&[5; 1000]);
        reader.fill(whole.slice(..500));
        assert_eq!(reader.next(), Ok(None));
        reader.fill(whole.slice(500..));
        let body = reader.next().unwrap().unwrap();
        assert_eq!(body[..], [5; 1000]);
        assert!(reader.is_empty() && reader.partial.capacity() == 0);

        let chunk = frame(&[6; 10]);
        reader.fill(chunk.clone());
        assert_eq!(reader.next().unwrap().unwrap()[..], [6; 10]);
        assert!(chunk.is_unique(), "the chunk was let go");
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.partial.capacity(), 0);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(1usize..400, 1..40),
            eager in any::<bool>(),
        ) {
            let mut stream: Bytes = bodies.iter().flat_map(|body| frame(body)).collect();
            let mut reader = FrameReader::default();
            let mut seen = Vec::new();
            for cut in cuts.iter().cycle() {
                if stream.is_empty() { break }
                reader.fill(stream.split_to((*cut).min(stream.len())));
                if eager || stream.is_empty() {
                    while let Some(body) = reader.next().unwrap() { seen.push(body.to_vec()) }
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(reader.is_empty() && reader.partial.capacity() == 0);
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }

    fn frame(body: &[u8]) -> Bytes {
        [&(body.len() as u32).to_be_bytes()[..], body].concat().into()
    }
}
