//! What may enter: every message is looked at, bounded and stripped before the protocol state sees it. `[pure]`
//!
//! The state keeps whatever it is told for ever: addresses of any id, announcements of any length, rounds that
//! overflow. So addresses are moved out into [`Inbound::learned`], lists are cut, and what no honest peer sends is
//! rejected. Rate limits and the number of announcements per topic are the caller's.

use std::collections::HashSet;

use iroh::EndpointId;

use super::{
    Class, ProtoMessage,
    addr::AddrInfo,
    mirror::{Announcements, Graft, Membership, Nodes, PeerData, Scope},
};
use crate::{
    counters::Reason,
    limits::{ROUND_MAX, TTL_MAX},
};

/// A message fit for the protocol state, and what was taken out of it.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The message, without any peer data.
    pub(crate) message: ProtoMessage,
    pub(crate) class: Class,
    /// What the sender says of others: hearsay.
    pub(crate) learned: Vec<(EndpointId, AddrInfo)>,
    /// What the sender says of itself, in a Join or Neighbor.
    pub(crate) sender_data: Option<AddrInfo>,
    /// Messages announced by an IHave, each id once.
    pub(crate) announced: Vec<[u8; 32]>,
    /// A message on its way through the mesh (ForwardJoin, Shuffle); only neighbours pass those on.
    pub(crate) is_walk: bool,
    pub(crate) notes: Notes,
}

/// How much of a message was left out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) nodes_cut: usize,
    pub(crate) peer_data_dropped: usize,
    pub(crate) addresses_dropped: usize,
    pub(crate) announcements_dropped: usize,
}

impl Notes {
    /// The counters to raise, zeros left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + use<> {
        [
            (Reason::NodesCut, self.nodes_cut),
            (Reason::PeerDataDropped, self.peer_data_dropped),
            (Reason::AddressDropped, self.addresses_dropped),
            (Reason::AnnouncementsDropped, self.announcements_dropped),
        ]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| (reason, n as u64))
    }
}

/// A message that must not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) reason: Reason,
}

const MALFORMED: Rejected = Rejected { reason: Reason::MessageMalformed };
const ROUND_IMPOSSIBLE: Rejected = Rejected { reason: Reason::RoundImpossible };
const SELF_ADDRESSED: Rejected = Rejected { reason: Reason::SelfAddressed };

/// Decides what of one frame's body may enter the node `me`.
///
/// Any bytes are safe here: nothing panics, and memory stays in proportion to the frame.
///
/// # Errors
///
/// [`Rejected`] if the frame is to be dropped whole, with the counter to raise.
pub(crate) fn inspect(body: &[u8], me: &EndpointId) -> Result<Inbound, Rejected> {
    // Postcard would also read padded variants such as `80 00`. Nobody writes them, so here they are malformed.
    match body {
        [0, 0..=4, ..] => membership(&body[1..], me),
        [0, 5, ..] => admit(body, Class::Disconnect),
        [1, 0, rest @ ..] => payload(body, rest),
        [1, 1, ..] => admit(body, Class::Announce),
        [1, 2, rest @ ..] => graft(body, rest),
        [1, 3, rest @ ..] => announcements(body, rest),
        _ => Err(MALFORMED),
    }
}

/// Reads a body that needs no change.
fn admit(body: &[u8], class: Class) -> Result<Inbound, Rejected> {
    let message = postcard::from_bytes(body).map_err(|_| MALFORMED)?;
    Ok(Inbound {
        message,
        class,
        learned: Vec::new(),
        sender_data: None,
        announced: Vec::new(),
        is_walk: false,
        notes: Notes::default(),
    })
}

/// The hot path: the round stands behind the content, which is skipped here and copied once, by upstream's type.
fn payload(body: &[u8], rest: &[u8]) -> Result<Inbound, Rejected> {
    let (_id, rest) = rest.split_at_checked(32).ok_or(MALFORMED)?;
    let (_content, scope): (&[u8], Scope) = postcard::from_bytes(rest).map_err(|_| MALFORMED)?;
    match scope {
        Scope::Swarm(round) => check_round(round)?,
        Scope::Neighbors => {}
    }
    admit(body, Class::Payload)
}

fn graft(body: &[u8], rest: &[u8]) -> Result<Inbound, Rejected> {
    let graft: Graft = postcard::from_bytes(rest).map_err(|_| MALFORMED)?;
    check_round(graft.round)?;
    admit(body, Class::Announce)
}

/// Each id once: the state queues every repetition, and answers one per 40 ms.
fn announcements(body: &[u8], rest: &[u8]) -> Result<Inbound, Rejected> {
    let mut list: Announcements = postcard::from_bytes(rest).map_err(|_| MALFORMED)?;
    list.kept.iter().try_for_each(|announced| check_round(announced.round))?;
    let offered = list.kept.len();
    let mut announced: Vec<_> = list.kept.iter().map(|announced| announced.id).collect();
    announced.sort_unstable();
    announced.dedup();
    if announced.len() < offered {
        // No honest peer does this, so only then is it worth a set.
        let mut seen = HashSet::with_capacity(offered);
        list.kept.retain(|announced| seen.insert(announced.id));
    }
    let dropped = offered - announced.len() + list.cut;

    let admitted = match dropped {
        0 => admit(body, Class::Announce)?,
        _ => admit(&reencode(&(1u8, 3u8, &list)), Class::Announce)?,
    };
    let notes = Notes { announcements_dropped: dropped, ..admitted.notes };
    Ok(Inbound { announced, notes, ..admitted })
}

fn check_round(round: u16) -> Result<(), Rejected> {
    if round > ROUND_MAX { Err(ROUND_IMPOSSIBLE) } else { Ok(()) }
}

fn membership(swarm: &[u8], me: &EndpointId) -> Result<Inbound, Rejected> {
    let mut message: Membership<'_> = postcard::from_bytes(swarm).map_err(|_| MALFORMED)?;
    let mut taken = Taken::default();
    match &mut message {
        Membership::Join(data) | Membership::Neighbor { priority: _, data } => {
            taken.sender_data = taken.notes.decode(data.take());
        }
        Membership::ForwardJoin { peer, ttl } => {
            if peer.id == *me.as_bytes() {
                return Err(SELF_ADDRESSED);
            }
            taken.learn(&peer.id, peer.data.take())?;
            *ttl = (*ttl).min(TTL_MAX);
        }
        Membership::Shuffle { origin, nodes, ttl } => {
            if origin == me.as_bytes() {
                return Err(SELF_ADDRESSED);
            }
            taken.learn_all(nodes, me)?;
            *ttl = (*ttl).min(TTL_MAX);
        }
        Membership::ShuffleReply { nodes } => taken.learn_all(nodes, me)?,
    }
    let is_walk = matches!(message, Membership::ForwardJoin { .. } | Membership::Shuffle { .. });
    let admitted = admit(&reencode(&(0u8, &message)), Class::Membership)?;
    let Taken { learned, sender_data, notes } = taken;
    Ok(Inbound { learned, sender_data, is_walk, notes, ..admitted })
}

/// The address data taken out of a membership message.
#[derive(Default)]
struct Taken {
    learned: Vec<(EndpointId, AddrInfo)>,
    sender_data: Option<AddrInfo>,
    notes: Notes,
}

impl Taken {
    /// This node may be named among the nodes of an honest Shuffle; it needs no introduction to itself.
    fn learn_all(&mut self, nodes: &mut Nodes<'_>, me: &EndpointId) -> Result<(), Rejected> {
        self.notes.nodes_cut += nodes.cut;
        nodes.kept.retain(|node| node.id != *me.as_bytes());
        nodes.kept.iter_mut().try_for_each(|node| self.learn(&node.id, node.data.take()))
    }

    /// An id that is no key spoils the whole message: every honest hop before this one has checked it.
    fn learn(&mut self, id: &[u8; 32], data: PeerData<'_>) -> Result<(), Rejected> {
        if let Some(info) = self.notes.decode(data).filter(|info| !info.is_empty()) {
            self.learned.push((EndpointId::from_bytes(id).map_err(|_| MALFORMED)?, info));
        }
        Ok(())
    }
}

impl Notes {
    fn decode(&mut self, data: PeerData<'_>) -> Option<AddrInfo> {
        match AddrInfo::decode(data?) {
            Some((info, left_out)) => {
                self.addresses_dropped += left_out;
                Some(info)
            }
            None => {
                self.peer_data_dropped += 1;
                None
            }
        }
    }
}

fn reencode(mirror: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(mirror).expect("what was read can be written")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::{
        super::{classify, encode, mirror::PeerInfo},
        *,
    };
    use crate::limits::{FRAME_MAX, IHAVE_IDS_MAX, PEER_DATA_MAX, SHUFFLE_NODES_MAX};

    #[test]
    fn every_message_has_the_documented_bytes() {
        for (body, class) in vectors() {
            let message: ProtoMessage = postcard::from_bytes(&body).unwrap();
            let frame = encode(&message).unwrap();
            assert_eq!(frame[4..], body, "{message:?}");
            assert_eq!(frame[..4], (body.len() as u32).to_be_bytes());
            assert_eq!(classify(&message), class);
            assert_eq!(inspect(&body, &key(1)).unwrap().class, class);
        }
    }

    #[test]
    fn a_message_without_peer_data_enters_as_it_is() {
        let strips = |body: &[u8]| matches!(body, [0, 0, 1, ..] | [0, 4, 1, 1, ..]);
        for (body, _) in vectors().into_iter().filter(|(body, _)| !strips(body)) {
            let inbound = inspect(&body, &key(1)).unwrap();
            assert_eq!(encode(&inbound.message).unwrap()[4..], body);
            assert_eq!((inbound.notes, inbound.learned.len(), inbound.sender_data), Default::default());
        }
    }

    #[test]
    fn addresses_are_taken_out_of_every_message() {
        let addr = [&[0, 1, 0][..], &[127, 0, 0, 1, 0xd1, 0x22]].concat();
        let node = || PeerInfo { id: *key(2).as_bytes(), data: Some(&addr) };
        check(&Membership::Join(Some(&addr)), expect!["00 00 00 | sender [127.0.0.1:4433]"]);
        let neighbor = Membership::Neighbor { priority: super::super::mirror::Priority::Low, data: Some(&addr) };
        check(&neighbor, expect!["00 04 01 00 | sender [127.0.0.1:4433]"]);
        check(&Membership::ForwardJoin { peer: node(), ttl: 6 }, expect!["00 01 <2> 00 06 | <2> [127.0.0.1:4433]"]);
        let nodes = || Nodes { kept: vec![node()], cut: 0 };
        let shuffle = Membership::Shuffle { origin: *key(3).as_bytes(), nodes: nodes(), ttl: 6 };
        check(&shuffle, expect!["00 02 <3> 01 <2> 00 06 | <2> [127.0.0.1:4433]"]);
        check(&Membership::ShuffleReply { nodes: nodes() }, expect!["00 03 01 <2> 00 | <2> [127.0.0.1:4433]"]);
    }

    #[test]
    fn peer_data_too_large_or_unreadable_is_dropped_and_counted() {
        check(&Membership::Join(Some(&[0; PEER_DATA_MAX + 1])), expect!["00 00 00 | peer-data-dropped 1"]);
        check(&Membership::Join(Some(&[7])), expect!["00 00 00 | peer-data-dropped 1"]);
        let nowhere = [&[0, 1, 0][..], &[0, 0, 0, 0, 80]].concat();
        check(&Membership::Join(Some(&nowhere)), expect!["00 00 00 | sender [] | address-dropped 1"]);
    }

    #[test]
    fn nobody_introduces_us_to_ourselves() {
        let me = || PeerInfo { id: *key(1).as_bytes(), data: None };
        let other = PeerInfo { id: *key(2).as_bytes(), data: None };
        check(&Membership::ForwardJoin { peer: me(), ttl: 6 }, expect!["self-addressed"]);
        let nodes = Nodes { kept: vec![me(), other, me()], cut: 0 };
        check(&Membership::ShuffleReply { nodes }, expect!["00 03 01 <2> 00"]);
        let nodes = Nodes { kept: vec![], cut: 0 };
        check(&Membership::Shuffle { origin: *key(1).as_bytes(), nodes, ttl: 1 }, expect!["self-addressed"]);
    }

    #[test]
    fn long_walks_are_shortened_and_forged_crowds_cut() {
        let peer = PeerInfo { id: *key(2).as_bytes(), data: None };
        check(&Membership::ForwardJoin { peer, ttl: u16::MAX }, expect!["00 01 <2> 00 10"]);
        let node = |n| (*key(n).as_bytes(), None::<&[u8]>);
        let crowd: Vec<_> = (2..122).map(node).collect();
        let body = postcard::to_stdvec(&(0u8, 3u8, &crowd)).unwrap();
        assert!(body.len() <= FRAME_MAX);
        let inbound = inspect(&body, &key(1)).unwrap();
        assert_eq!(inbound.notes.iter().collect::<Vec<_>>(), [(Reason::NodesCut, 120 - SHUFFLE_NODES_MAX as u64)]);
        let expected = postcard::to_stdvec(&(0u8, 3u8, &crowd[..SHUFFLE_NODES_MAX])).unwrap();
        assert_eq!(encode(&inbound.message).unwrap()[4..], expected);
    }

    #[test]
    fn an_id_off_the_curve_spoils_its_message() {
        let off_curve = (0..=255).map(|n| [n; 32]).find(|id| EndpointId::from_bytes(id).is_err()).unwrap();
        check(
            &Membership::ForwardJoin { peer: PeerInfo { id: off_curve, data: None }, ttl: 6 },
            expect!["message-malformed"],
        );
    }

    #[test]
    fn impossible_rounds_are_rejected() {
        let id = [9u8; 32];
        let bodies = |round: u16| {
            [
                postcard::to_stdvec(&(1u8, 0u8, id, b"hi".as_slice(), 0u8, round)).unwrap(),
                postcard::to_stdvec(&(1u8, 2u8, Some(id), round)).unwrap(),
                postcard::to_stdvec(&(1u8, 3u8, vec![(id, 0), (id, round)])).unwrap(),
            ]
        };
        for body in bodies(ROUND_MAX) {
            inspect(&body, &key(1)).unwrap();
        }
        for body in bodies(ROUND_MAX + 1) {
            assert_eq!(inspect(&body, &key(1)).unwrap_err(), ROUND_IMPOSSIBLE);
        }
    }

    #[test]
    fn an_ihave_counts_each_id_once_and_only_as_many_as_stock_sends() {
        let ids = |n: u8| (0..n).map(|n| ([n; 32], 0u16));
        for (list, announced, dropped) in [
            (ids(3).collect::<Vec<_>>(), 3, 0),
            (ids(2).chain(ids(2)).chain(ids(3)).collect(), 3, 4),
            (ids(118).collect(), IHAVE_IDS_MAX, 2),
        ] {
            let body = postcard::to_stdvec(&(1u8, 3u8, &list)).unwrap();
            let inbound = inspect(&body, &key(1)).unwrap();
            assert_eq!((inbound.announced.len(), inbound.notes.announcements_dropped), (announced, dropped));
            let body = &encode(&inbound.message).unwrap()[4..];
            assert_eq!(inspect(body, &key(1)).unwrap().announced.len(), announced, "what enters is what was counted");
        }
    }

    #[test]
    fn padded_variants_and_forged_lengths_are_malformed() {
        let forged_list = [0, 3, 0xff, 0x1f].iter().copied().chain([0; 4000]).collect();
        let cases: [Vec<u8>; 8] = [
            vec![],
            vec![0],
            vec![0x80, 0, 0, 0],
            vec![0, 0x80, 0, 0],
            vec![2, 0],
            vec![0, 6],
            vec![1, 3, 0xff, 0xff, 0xff, 0xff, 0x0f],
            forged_list,
        ];
        for body in cases {
            assert_eq!(inspect(&body, &key(1)).unwrap_err(), MALFORMED, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_the_inspector(body in prop::collection::vec(any::<u8>(), 0..FRAME_MAX)) {
            inspect_and_verify(&body);
        }

        #[test]
        fn nor_can_a_damaged_message(
            base in prop::sample::select(damageable()),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            len in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut body = base;
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if cut { body.truncate(len.index(body.len() + 1)) }
            inspect_and_verify(&body);
        }
    }

    /// What enters is bounded, carries no peer data, and would enter again unchanged.
    fn inspect_and_verify(body: &[u8]) {
        let Ok(inbound) = inspect(body, &key(1)) else { return };
        assert!(inbound.learned.len() <= SHUFFLE_NODES_MAX && inbound.announced.len() <= IHAVE_IDS_MAX);
        assert_eq!(inbound.class, classify(&inbound.message));
        let again = postcard::to_stdvec(&inbound.message).unwrap();
        assert!(again.len() <= body.len(), "a message does not grow by being inspected");
        if inbound.class == Class::Membership {
            let message: Membership<'_> = postcard::from_bytes(&again[1..]).unwrap();
            let has_data = match message {
                Membership::Join(data) | Membership::Neighbor { data, .. } => data.is_some(),
                Membership::ForwardJoin { peer, .. } => peer.data.is_some(),
                Membership::Shuffle { nodes, .. } | Membership::ShuffleReply { nodes } => {
                    nodes.kept.iter().any(|node| node.data.is_some())
                }
            };
            assert!(!has_data, "peer data entered: {}", readable(&again));
        }
        let second = inspect(&again, &key(1)).unwrap();
        assert_eq!((second.message == inbound.message, second.notes), (true, Notes::default()));
    }

    fn check(message: &Membership<'_>, expected: Expect) {
        let body = postcard::to_stdvec(&(0u8, message)).unwrap();
        let outcome = match inspect(&body, &key(1)) {
            Err(rejected) => rejected.reason.name().to_owned(),
            Ok(inbound) => {
                let mut outcome = readable(&encode(&inbound.message).unwrap()[4..]);
                if let Some(info) = inbound.sender_data {
                    outcome += &format!(" | sender {:?}", info.direct_addresses);
                }
                for (peer, info) in inbound.learned {
                    outcome += &format!(" | {} {:?}", readable(peer.as_bytes()), info.direct_addresses);
                }
                for (reason, n) in inbound.notes.iter() {
                    outcome += &format!(" | {} {n}", reason.name());
                }
                outcome
            }
        };
        expected.assert_eq(&outcome);
    }

    /// Hex, with the keys of these tests written `<n>`.
    fn readable(bytes: &[u8]) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        (1..4).fold(hex(bytes), |text, n| text.replace(&hex(key(n).as_bytes()), &format!("<{n}>")))
    }

    fn vectors() -> Vec<(Vec<u8>, Class)> {
        let id = *key(9).as_bytes();
        let hash = *blake3::hash(b"hi").as_bytes();
        let join = |parts: &[&[u8]]| parts.concat();
        vec![
            (vec![0, 0, 0], Class::Membership),
            (vec![0, 0, 1, 0], Class::Membership),
            (join(&[&[0, 1], &id, &[0, 6]]), Class::Membership),
            (join(&[&[0, 2], &id, &[0, 6]]), Class::Membership),
            (vec![0, 3, 0], Class::Membership),
            (vec![0, 4, 0, 0], Class::Membership),
            (vec![0, 4, 1, 1, 2, 0x61, 0x62], Class::Membership),
            (vec![0, 5, 0, 0], Class::Disconnect),
            (vec![0, 5, 1, 0], Class::Disconnect),
            (join(&[&[1, 0], &hash, &[2, 0x68, 0x69, 0, 0]]), Class::Payload),
            (join(&[&[1, 0], &hash, &[2, 0x68, 0x69, 1]]), Class::Payload),
            (vec![1, 1], Class::Announce),
            (join(&[&[1, 2, 1], &id, &[1]]), Class::Announce),
            (vec![1, 2, 0, 0xac, 2], Class::Announce),
            (join(&[&[1, 3, 1], &id, &[0]]), Class::Announce),
        ]
    }

    /// Valid messages with much in them to go wrong.
    fn damageable() -> Vec<Vec<u8>> {
        let addr: &[u8] = &[0, 2, 0, 127, 0, 0, 1, 0xd1, 0x22, 0, 10, 0, 0, 1, 80];
        let nodes: Vec<_> = (1..20).map(|n| (*key(n).as_bytes(), Some(addr))).collect();
        let ids: Vec<_> = (0..10u8).map(|n| ([n / 2; 32], u16::from(n) * 100)).collect();
        let rich = [
            postcard::to_stdvec(&(0u8, 2u8, *key(5).as_bytes(), &nodes, 6u16)).unwrap(),
            postcard::to_stdvec(&(0u8, 3u8, &nodes)).unwrap(),
            postcard::to_stdvec(&(0u8, 4u8, 0u8, Some(addr))).unwrap(),
            postcard::to_stdvec(&(1u8, 3u8, &ids)).unwrap(),
        ];
        vectors().into_iter().map(|(body, _)| body).chain(rich).collect()
    }

    fn key(n: u8) -> EndpointId {
        SecretKey::from_bytes(&[n; 32]).public()
    }
}
