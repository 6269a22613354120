//! The messages that keep the tree, Prune, Graft and IHave, as frames. `[pure]`

use bytes::Bytes;

use super::{
    LENGTH, ProtoMessage, encode, encode_frame,
    mirror::{Announced, Announcements, Scope},
};

/// Whether an encoded Gossip message is a Prune or a Graft.
pub(crate) fn is_of_tree(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, 1, 1 | 2, ..])
}

/// A neighbour's wish to be pushed messages from here on.
pub(crate) fn graft() -> ProtoMessage {
    postcard::from_bytes(&[1, 2, 0, 0]).expect("a Graft without an id is well-formed")
}

/// A neighbour's wish to be pushed messages from here on, this one first.
pub(crate) fn graft_of(id: &[u8; 32]) -> ProtoMessage {
    let mut body = [0; 36];
    body[..3].copy_from_slice(&[1, 2, 1]);
    body[3..35].copy_from_slice(id);
    postcard::from_bytes(&body).expect("a Graft is well-formed")
}

/// What an encoded message with content is announced as: its id, and how far it has come. `None` for anything else.
pub(crate) fn announced_of(frame: &[u8]) -> Option<([u8; 32], u16)> {
    let (id, rest) = frame.get(LENGTH..)?.strip_prefix(&[1, 0])?.split_first_chunk::<32>()?;
    match postcard::from_bytes::<(&[u8], Scope)>(rest) {
        Ok((_content, Scope::Swarm(round))) => Some((*id, round)),
        Ok((_, Scope::Neighbors)) | Err(_) => None,
    }
}

/// An IHave of these messages, as a frame. They must be few enough for one ([`crate::limits::IHAVE_IDS_MAX`]).
pub(crate) fn announcement(messages: &[([u8; 32], u16)]) -> Bytes {
    let kept = messages.iter().map(|(id, round)| Announced { id: *id, round: *round }).collect();
    encode_frame(&(1u8, 3u8, Announcements { kept, cut: 0 })).expect("no more than fit a frame")
}

/// An encoded IHave without the ids of which `is_news` is false: the same frame if all are, `None` if none is. Any other frame is
/// given back as it is.
pub(crate) fn retain_announced(frame: Bytes, mut is_news: impl FnMut(&[u8; 32]) -> bool) -> Option<Bytes> {
    let Some(list) = frame.get(LENGTH..).and_then(|body| body.strip_prefix(&[1, 3])) else { return Some(frame) };
    let Ok(mut list) = postcard::from_bytes::<Announcements>(list) else { return Some(frame) };
    let offered = list.kept.len();
    list.kept.retain(|announced| is_news(&announced.id));
    match list.kept.len() {
        0 => None,
        all if all == offered => Some(frame),
        // Shorter than what fitted.
        _ => encode_frame(&(1u8, 3u8, &list)).ok(),
    }
}

/// An IHave of those announcements of `message` that `is_kept`: some of them.
pub(crate) fn keep_announced(message: &ProtoMessage, is_kept: impl FnMut(&[u8; 32]) -> bool) -> ProtoMessage {
    let frame = encode(message).expect("what was read fits a frame");
    let kept = retain_announced(frame, is_kept).expect("some of them are kept");
    postcard::from_bytes(&kept[LENGTH..]).expect("an IHave with fewer ids is well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::farewell;

    fn ihave(ids: &[u8]) -> Bytes {
        announcement(&ids.iter().map(|id| ([*id; 32], u16::from(*id))).collect::<Vec<_>>())
    }

    #[test]
    fn an_announcement_is_what_the_protocol_reads() {
        let frame = ihave(&[1, 200]);
        let message: ProtoMessage = postcard::from_bytes(&frame[LENGTH..]).unwrap();
        assert!(format!("{message:?}").contains("IHave"), "{message:?}");
        assert_eq!(encode(&message), Ok(frame));
        assert_eq!(encode(&graft()).unwrap()[LENGTH..], [1, 2, 0, 0]);
        assert!(is_of_tree(&encode(&graft_of(&[7; 32])).unwrap()));
        assert!(!is_of_tree(&ihave(&[1])));
    }

    #[test]
    fn a_message_is_announced_by_its_id_and_round_unless_it_is_for_neighbours_only() {
        let frame = |scope: &[u8]| {
            let body = [&[1, 0][..], &[9; 32], &[3, b'a', b'b', b'c'], scope].concat();
            [&(body.len() as u32).to_be_bytes()[..], &body].concat()
        };
        assert_eq!(announced_of(&frame(&[0, 0xac, 0x02])), Some(([9; 32], 300)));
        assert_eq!(announced_of(&frame(&[1])), None);
        assert_eq!(announced_of(&ihave(&[1])), None);
    }

    #[test]
    fn what_is_no_news_is_taken_out_of_an_ihave() {
        let retained = |is_news: fn(u8) -> bool| retain_announced(ihave(&[1, 2, 3]), |id| is_news(id[0]));
        assert_eq!(retained(|_| true), Some(ihave(&[1, 2, 3])));
        assert_eq!(retained(|id| id != 2), Some(ihave(&[1, 3])));
        assert_eq!(retained(|_| false), None);
        let message = postcard::from_bytes(&ihave(&[1, 2, 3])[LENGTH..]).unwrap();
        assert_eq!(encode(&keep_announced(&message, |id| id[0] == 2)), Ok(ihave(&[2])));
        let other = encode(&farewell()).unwrap();
        assert_eq!(retain_announced(other.clone(), |_| false), Some(other));
    }
}
