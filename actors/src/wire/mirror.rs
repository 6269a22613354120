//! The protocol's messages once more, with their fields open: same postcard layout, borrowed bytes, raw ids. `[pure]`
//!
//! Upstream keeps its inner message types private, so what enters and leaves is looked at through these. They judge
//! nothing: `inspect.rs` decides what may come in, `dress.rs` what goes out.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

use crate::limits::{IHAVE_IDS_MAX, SHUFFLE_NODES_MAX};

/// A public key or a message id, not checked: an id that is no point of the curve fails when upstream's type is read.
pub(super) type RawId = [u8; 32];

/// Opaque address data of a peer.
pub(super) type PeerData<'a> = Option<&'a [u8]>;

/// The membership messages: everything behind a first byte of 0, except Disconnect.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Membership<'a> {
    #[serde(borrow)]
    Join(PeerData<'a>),
    ForwardJoin {
        peer: PeerInfo<'a>,
        ttl: u16,
    },
    Shuffle {
        origin: RawId,
        nodes: Nodes<'a>,
        ttl: u16,
    },
    ShuffleReply {
        nodes: Nodes<'a>,
    },
    Neighbor {
        priority: Priority,
        data: PeerData<'a>,
    },
}

pub(super) type Nodes<'a> = Few<PeerInfo<'a>, SHUFFLE_NODES_MAX>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PeerInfo<'a> {
    pub(super) id: RawId,
    #[serde(borrow)]
    pub(super) data: PeerData<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Priority {
    High,
    Low,
}

/// How far a message goes, and has come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Scope {
    Swarm(u16),
    Neighbors,
}

/// A Graft: please send this message, and what follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Graft {
    pub(super) id: Option<RawId>,
    pub(super) round: u16,
}

/// The announcements of one IHave.
pub(super) type Announcements = Few<Announced, IHAVE_IDS_MAX>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Announced {
    pub(super) id: RawId,
    pub(super) round: u16,
}

/// A list of which the first `MAX` entries are kept, and the rest read and counted.
///
/// Serde would reserve room for as many entries as the list claims, up to fifty times the frame; this one reserves
/// `MAX` at most, and a list that was read once really is as long as it says.
#[derive(Debug)]
pub(super) struct Few<T, const MAX: usize> {
    pub(super) kept: Vec<T>,
    pub(super) cut: usize,
}

impl<T: Serialize, const MAX: usize> Serialize for Few<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kept.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for FewVisitor<T, MAX> {
    type Value = Few<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::with_capacity(list.size_hint().unwrap_or(0).min(MAX));
        let mut cut = 0;
        while let Some(entry) = list.next_element()? {
            if kept.len() < MAX { kept.push(entry) } else { cut += 1 }
        }
        Ok(Few { kept, cut })
    }
}
