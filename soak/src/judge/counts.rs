//! Counts, which need no statistics: what a drained node holds is exactly what its neighbours need. `[pure]`

use crate::run_format::{Barrier, Kind};

/// Connections a settled node may be parting from at any moment: every shuffle, once a minute and node, meets a stranger
/// for some seconds.
const PARTING_MAX: u64 = 2;

/// Why this node is not drained, if it is not: the exact invariants of a barrier, in words. `remotes` is the number of
/// other live nodes.
///
/// Neighbours are no measure: a connection belongs to both ends, and a view may be one-sided until the next shuffle.
/// Figures the node does not tell are not missed here; the judge says what it could not judge.
pub(crate) fn undrained(row: &Barrier, remotes: u64) -> Option<String> {
    let orphans = |(kind, counts): (&String, &Kind)| Some((kind.clone(), counts.orphans?));
    if let Some((kind, orphans)) = row.kinds.iter().filter_map(orphans).find(|(_, orphans)| *orphans != 0) {
        return Some(format!("{orphans} orphans of kind {kind}"));
    }
    if let Some(half_open) = row.half_open.filter(|half_open| *half_open > 0) {
        return Some(format!("{half_open} handshakes half open"));
    }
    if let Some(unleased) = row.unleased.filter(|unleased| *unleased > PARTING_MAX) {
        return Some(format!("{unleased} connections that nobody holds"));
    }
    let loops = row.kinds.get("connection");
    if let (Some(loops), Some(peers)) = (loops, row.peers)
        && loops.alive() != peers as i64
    {
        let (spawned, finished) = (loops.spawned, loops.finished);
        return Some(format!(
            "{} connection tasks have no peer (spawned {spawned}, finished {finished}, peers {peers})",
            loops.alive() - peers as i64
        ));
    }
    let connections = row.connections?;
    if let Some(peers) = row.peers.filter(|peers| *peers != connections) {
        return Some(format!("{connections} connections belong to {peers} peers in the table"));
    }
    if let Some(loops) = loops.filter(|loops| loops.alive() != connections as i64) {
        return Some(format!("{connections} open connections and {} tasks that serve them", loops.alive()));
    }
    let more = connections.checked_sub(remotes).filter(|more| *more > 0)?;
    Some(format!("{more} connections have no peer ({connections} open, {remotes} other nodes alive)"))
}
