//! Address data for outgoing messages: the protocol state holds none, and stock peers learn addresses nowhere else.
//! `[pure]`

use bytes::Bytes;
use iroh::EndpointId;

use super::{
    Class, EncodeError, ProtoMessage,
    addr::AddrInfo,
    body_size, classify, encode, encode_frame,
    mirror::{Membership, PeerInfo},
};
use crate::limits::FRAME_MAX;

/// One frame with addresses put in: this node's own into Join and Neighbor, those `lookup` knows beside every peer
/// named. Where they do not fit, the last peers go without, and if need be go missing; other messages pass unchanged.
/// No more peers are named than we would accept ourselves.
pub(crate) fn encode_dressed(
    message: &ProtoMessage,
    me_info: &AddrInfo,
    lookup: impl FnMut(&EndpointId) -> Option<AddrInfo>,
) -> Result<Bytes, EncodeError> {
    if classify(message) != Class::Membership {
        return encode(message);
    }
    let body = postcard::to_stdvec(message).expect("messages hold nothing postcard cannot write");
    let mut mirror: Membership<'_> = postcard::from_bytes(&body[1..]).expect("the mirror has upstream's layout");
    let own = me_info.encode();
    let known = look_up(mirror.peers_mut(), lookup);
    match &mut mirror {
        Membership::Join(data) | Membership::Neighbor { priority: _, data } => *data = Some(&own),
        Membership::ForwardJoin { .. } | Membership::Shuffle { .. } | Membership::ShuffleReply { .. } => {
            for (peer, found) in mirror.peers_mut().iter_mut().zip(&known) {
                peer.data = found.as_deref().or(peer.data);
            }
        }
    }
    while body_size(&(0u8, &mirror)) >= FRAME_MAX && mirror.give_up_last() {}
    encode_frame(&(0u8, &mirror))
}

fn look_up(peers: &[PeerInfo<'_>], mut lookup: impl FnMut(&EndpointId) -> Option<AddrInfo>) -> Vec<Option<Vec<u8>>> {
    let mut encoded = |id| {
        let info = lookup(&EndpointId::from_bytes(id).ok()?)?;
        (!info.is_empty()).then(|| info.encode())
    };
    peers.iter().map(|peer| encoded(&peer.id)).collect()
}

impl<'a> Membership<'a> {
    /// The peers a message names with room for data.
    fn peers_mut(&mut self) -> &mut [PeerInfo<'a>] {
        match self {
            Self::Join(_) | Self::Neighbor { .. } => &mut [],
            Self::ForwardJoin { peer, .. } => std::slice::from_mut(peer),
            Self::Shuffle { nodes, .. } | Self::ShuffleReply { nodes } => &mut nodes.kept,
        }
    }

    /// Makes the message smaller, data first and peers after it; false if nothing is left to give up.
    fn give_up_last(&mut self) -> bool {
        if let Some(dressed) = self.peers_mut().iter_mut().rev().find(|peer| peer.data.is_some()) {
            dressed.data = None;
            return true;
        }
        match self {
            Self::Join(data) | Self::Neighbor { data, .. } => data.take().is_some(),
            Self::ForwardJoin { .. } => false,
            Self::Shuffle { nodes, .. } | Self::ShuffleReply { nodes } => nodes.kept.pop().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::{limits::SHUFFLE_NODES_MAX, wire::inspect::inspect};

    #[test]
    fn our_own_addresses_go_into_join_and_neighbor() {
        for bare in [&[0u8, 0, 0][..], &[0, 4, 1, 0]] {
            let frame = encode_dressed(&message(bare), &info(2), |_| None).unwrap();
            let inbound = inspect(&frame[4..], &key(0)).unwrap();
            assert_eq!(inbound.sender_data, Some(info(2)));
            assert_eq!(inbound.message, message(bare));
        }
    }

    #[test]
    fn a_peer_named_goes_with_what_the_book_knows_of_it() {
        let bare = postcard::to_stdvec(&(0u8, 3u8, [node(1), node(2), node(3)].as_slice())).unwrap();
        let frame = encode_dressed(&message(&bare), &info(9), |peer| (*peer != key(2)).then(|| info(1))).unwrap();
        let inbound = inspect(&frame[4..], &key(0)).unwrap();
        assert_eq!(inbound.learned, [(key(1), info(1)), (key(3), info(1))]);
        assert_eq!(inbound.message, message(&bare));
    }

    #[test]
    fn messages_about_content_pass_unchanged() {
        for body in [&[1u8, 1][..], &[1, 2, 0, 0], &[0, 5, 1, 0]] {
            let frame = encode_dressed(&message(body), &info(9), |_| panic!("nobody is named")).unwrap();
            assert_eq!(frame[4..], *body);
        }
    }

    #[test]
    fn where_room_ends_the_last_go_without() {
        let crowd: Vec<_> = (1..=SHUFFLE_NODES_MAX as u8).map(node).collect();
        let bare = postcard::to_stdvec(&(0u8, 3u8, &crowd)).unwrap();
        let relay = format!("https://{}.example/", "a".repeat(150)).parse().unwrap();
        let large = AddrInfo { relay_url: Some(relay), ..info(16) };
        let frame = encode_dressed(&message(&bare), &large, |_| Some(large.clone())).unwrap();
        let inbound = inspect(&frame[4..], &key(0)).unwrap();
        assert_eq!(inbound.message, message(&bare), "no peer is lost");
        let dressed: Vec<_> = inbound.learned.iter().map(|(peer, _)| *peer).collect();
        assert!(!dressed.is_empty() && dressed.len() < crowd.len());
        assert!(dressed.iter().zip(1..).all(|(peer, n)| *peer == key(n)), "the first keep theirs");
    }

    proptest! {
        #[test]
        fn a_dressed_message_is_within_the_limits_of_stock(
            shape in 0u8..5,
            peers in prop::collection::vec((any::<u8>(), prop::option::of(0usize..600)), 1..120),
            addresses in 0u8..40,
            relay in 0usize..400,
        ) {
            let padding = |len: usize| vec![0u8; len];
            let nodes: Vec<_> = peers.iter().map(|(n, data)| (*key(*n).as_bytes(), data.map(padding))).collect();
            let bare = match shape {
                0 => vec![0, 0, 0],
                1 => postcard::to_stdvec(&(0u8, 1u8, &nodes[0], 6u16)).unwrap(),
                2 => postcard::to_stdvec(&(0u8, 2u8, key(1).as_bytes(), &nodes, 6u16)).unwrap(),
                3 => postcard::to_stdvec(&(0u8, 3u8, &nodes)).unwrap(),
                _ => vec![0, 4, 0, 0],
            };
            let relay_url = format!("https://{}.example/", "a".repeat(relay)).parse().ok();
            let large = AddrInfo { relay_url, ..info(addresses) };
            let every_other = |peer: &EndpointId| (peer.as_bytes()[0] & 1 == 0).then(|| large.clone());
            let frame = encode_dressed(&message(&bare), &large, every_other).unwrap();
            prop_assert!(frame.len() - 4 < FRAME_MAX);
            let read: ProtoMessage = postcard::from_bytes(&frame[4..]).unwrap();
            prop_assert_eq!(encode(&read).unwrap(), frame);
        }
    }

    fn node(n: u8) -> ([u8; 32], Option<()>) {
        (*key(n).as_bytes(), None)
    }

    fn message(body: &[u8]) -> ProtoMessage {
        postcard::from_bytes(body).unwrap()
    }

    /// `n` distinct IPv6 addresses, in the order the wire sorts them.
    fn info(n: u8) -> AddrInfo {
        let direct_addresses =
            (0..n).map(|n| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n.into()], 40_000))).collect();
        AddrInfo { relay_url: None, direct_addresses }
    }

    fn key(n: u8) -> EndpointId {
        SecretKey::from_bytes(&[n; 32]).public()
    }
}
