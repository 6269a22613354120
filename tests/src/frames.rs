//! The wire format of stock iroh-gossip 0.101 written out by hand: bodies of every message, frames, headers.
//!
//! On purpose without postcard and without the library's codec: this is the second opinion both are held against, and
//! it can say what neither would ever say.

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;

/// A frame: the length of the body, then the body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The first frame of every stream: which topic it is for.
pub fn header(topic: TopicId) -> Vec<u8> {
    frame(topic.as_bytes())
}

/// The highest priority a Neighbor request can have; it may not be denied.
pub const HIGH: u8 = 0;

/// Join without address data.
pub fn join() -> Vec<u8> {
    vec![0, 0, 0]
}

/// Join with optional address data.
pub fn join_with(data: Option<&[u8]>) -> Vec<u8> {
    data.map_or_else(join, |data| [vec![0, 0, 1], prefixed(data)].concat())
}

/// ForwardJoin for a peer with optional address data.
pub fn forward_join(peer: EndpointId, data: Option<&[u8]>, ttl: u16) -> Vec<u8> {
    [vec![0, 1], peer_info(peer, data), varint(ttl.into())].concat()
}

/// Shuffle of a node list on behalf of `origin`.
pub fn shuffle(origin: EndpointId, nodes: &[(EndpointId, Option<Vec<u8>>)], ttl: u16) -> Vec<u8> {
    [vec![0, 2], origin.as_bytes().to_vec(), node_list(nodes), varint(ttl.into())].concat()
}

/// ShuffleReply with a node list. Empty, it is the farewell to a peer that is no neighbour.
pub fn shuffle_reply(nodes: &[(EndpointId, Option<Vec<u8>>)]) -> Vec<u8> {
    [vec![0, 3], node_list(nodes)].concat()
}

/// Neighbor without address data.
pub fn neighbor(priority: u8) -> Vec<u8> {
    vec![0, 4, priority, 0]
}

/// Disconnect; `alive` says whether the sender can be asked again.
pub fn disconnect(alive: bool) -> Vec<u8> {
    vec![0, 5, alive.into(), 0]
}

/// A message on its way through the swarm, `round` hops from its publisher.
pub fn gossip(content: &[u8], round: u16) -> Vec<u8> {
    let id = blake3::hash(content);
    [vec![1, 0], id.as_bytes().to_vec(), prefixed(content), vec![0], varint(round.into())].concat()
}

/// Prune: no more full messages from you, please.
pub fn prune() -> Vec<u8> {
    vec![1, 1]
}

/// Graft: send this message, and full messages from then on.
pub fn graft(id: [u8; 32], round: u16) -> Vec<u8> {
    [vec![1, 2, 1], id.to_vec(), varint(round.into())].concat()
}

/// IHave: the ids of messages the sender could deliver.
pub fn i_have(ids: &[[u8; 32]], round: u16) -> Vec<u8> {
    let entries = ids.iter().flat_map(|id| [id.to_vec(), varint(round.into())].concat());
    [vec![1, 3], varint(ids.len() as u64), entries.collect()].concat()
}

/// The address data of a peer: no relay, one IPv4 address each.
pub fn addr_info(addrs: &[([u8; 4], u16)]) -> Vec<u8> {
    let entries = addrs.iter().flat_map(|(ip, port)| [vec![0], ip.to_vec(), varint((*port).into())].concat());
    [vec![0], varint(addrs.len() as u64), entries.collect()].concat()
}

/// An unsigned number in seven-bit groups, lowest first.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn peer_info(peer: EndpointId, data: Option<&[u8]>) -> Vec<u8> {
    let data = data.map_or(vec![0], |data| [vec![1], prefixed(data)].concat());
    [peer.as_bytes().to_vec(), data].concat()
}

fn node_list(nodes: &[(EndpointId, Option<Vec<u8>>)]) -> Vec<u8> {
    let entries = nodes.iter().flat_map(|(id, data)| peer_info(*id, data.as_deref()));
    [varint(nodes.len() as u64), entries.collect()].concat()
}
