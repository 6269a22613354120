//! The two tables of a run: looks during the storm and barriers after it, as CSV with a header. `[pure]`
//!
//! Columns are found by name, so their order is free and an absent column is an absent figure. A name nobody knows is an
//! error: a misspelt column must not read as a missing one. `kind:NAME` holds `spawned/finished/owned/orphans` of a kind of
//! task, `store:NAME` holds `size/cap/high-water` of a map or cache, `retired:CAUSE` holds `count/late/slowest in ms` of
//! the connections that ended so, `bucket:NAME` a number of live blocks. The cells with more than one word in them are in
//! `rows/cells.rs`.

mod cells;

use std::{collections::BTreeMap, str::FromStr};

pub(crate) use cells::{Edges, Kind, Lingering, Retired, Store};

/// One node at one drained barrier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Barrier {
    pub epoch: u32,
    pub node: u32,
    /// Events done so far in the whole run, the warm-up included.
    pub events: u64,
    pub at_ms: u64,
    /// The beginning of its id, as other nodes name it among their neighbours.
    pub id: Option<String>,
    /// From the end of the storm to this barrier.
    pub waited_ms: Option<u64>,
    /// Whether the mesh was calm in time.
    pub drained: Option<bool>,
    /// Whether every timer of a node had run out before; absent where not.
    pub deep: Option<bool>,
    pub connections: Option<u64>,
    pub half_open: Option<u64>,
    pub neighbors: Option<u64>,
    /// Peers in the table that hold at least one connection.
    pub peers: Option<u64>,
    /// Connections to nodes of other software beyond one for each: of two dials at once such a node may use either.
    pub foreign_doubles: Option<u64>,
    /// Connections that nobody holds a lease on.
    pub unleased: Option<u64>,
    pub tasks: Option<u64>,
    pub heap_bytes: Option<u64>,
    pub heap_blocks: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// Of that, what no file backs; the kernel's word, shared pages by their share.
    pub anon_bytes: Option<u64>,
    /// Whether the node had given free memory back before it was looked at.
    pub trimmed: Option<bool>,
    pub fds: Option<u64>,
    pub threads: Option<u64>,
    /// Messages of this epoch that did not arrive, arrived twice, and were expected.
    pub missed: Option<u64>,
    pub duplicates: Option<u64>,
    pub deliveries: Option<u64>,
    /// Messages of the storm: pairs of a speaker and a listener, those in which nothing arrived; of the pairs those that no
    /// fault touched, and those of these in which nothing arrived, or it arrived twice.
    pub storm_pairs: Option<u64>,
    pub storm_unheard: Option<u64>,
    pub storm_untouched: Option<u64>,
    pub storm_missed: Option<u64>,
    pub storm_twice: Option<u64>,
    pub latency_p50_ms: Option<f64>,
    pub latency_p99_ms: Option<f64>,
    pub latency_max_ms: Option<f64>,
    /// Retirements so far, those without a cause or beyond their deadline, and the slowest of them.
    pub retired: Option<u64>,
    pub retired_late: Option<u64>,
    pub retire_max_ms: Option<f64>,
    pub retire_p50_ms: Option<f64>,
    pub retire_p99_ms: Option<f64>,
    /// The connection that should have been gone the longest.
    pub lingering: Option<Lingering>,
    /// Parts of the overlay, and edges that one end only announces.
    pub components: Option<u64>,
    pub one_sided_edges: Option<u64>,
    /// Its active view.
    pub edges: Option<Edges>,
    pub panics: Option<u64>,
    pub restarts: Option<u64>,
    /// Lines logged so far.
    pub log_lines: Option<u64>,
    pub error_lines: Option<u64>,
    pub kinds: BTreeMap<String, Kind>,
    pub stores: BTreeMap<String, Store>,
    /// Retirements by cause.
    pub retirements: BTreeMap<String, Retired>,
    pub buckets: BTreeMap<String, u64>,
}

/// One node during the storm.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Look {
    pub at_ms: u64,
    pub epoch: u32,
    pub node: u32,
    pub events: u64,
    pub connections: Option<u64>,
    pub tasks: Option<u64>,
    pub heap_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub fds: Option<u64>,
    pub threads: Option<u64>,
    /// The kind `connection` of the ledger, in one snapshot with `connections`.
    pub connection: Option<Kind>,
}

/// Turns a cell into a field and back, one macro for both directions so that they cannot drift apart.
macro_rules! columns {
    ($row:ident, required: [$($must:ident),*], optional: [$($may:ident),*]) => {
        impl $row {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($must),)* $(stringify!($may),)*];

            fn set(&mut self, column: &str, cell: &str) -> Result<bool, String> {
                match column {
                    $(stringify!($must) => self.$must = required(column, cell)?,)*
                    $(stringify!($may) => self.$may = optional(column, cell)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn cell(&self, column: &str) -> String {
                match column {
                    $(stringify!($must) => self.$must.to_string(),)*
                    $(stringify!($may) => self.$may.as_ref().map(ToString::to_string).unwrap_or_default(),)*
                    _ => String::new(),
                }
            }

            fn missing(header: &[&str]) -> Option<&'static str> {
                [$(stringify!($must)),*].into_iter().find(|column| !header.contains(column))
            }
        }
    };
}

columns!(Barrier, required: [epoch, node, events, at_ms], optional: [
    id, waited_ms, drained, deep, connections, half_open, neighbors, peers, foreign_doubles, unleased, tasks, heap_bytes,
    heap_blocks, rss_bytes, anon_bytes, trimmed, fds, threads, missed, duplicates, deliveries, storm_pairs,
    storm_unheard, storm_untouched, storm_missed, storm_twice, latency_p50_ms,
    latency_p99_ms, latency_max_ms, retired, retired_late, retire_max_ms, retire_p50_ms, retire_p99_ms, lingering,
    components, one_sided_edges, edges, panics, restarts, log_lines, error_lines
]);
columns!(Look, required: [at_ms, epoch, node, events], optional: [
    connections, tasks, heap_bytes, rss_bytes, fds, threads, connection
]);

fn required<T: FromStr>(column: &str, cell: &str) -> Result<T, String> {
    optional(column, cell)?.ok_or_else(|| format!("{column} is empty"))
}

fn optional<T: FromStr>(column: &str, cell: &str) -> Result<Option<T>, String> {
    if cell.is_empty() {
        return Ok(None);
    }
    cell.parse().map(Some).map_err(|_| format!("{column} is `{cell}`, which is no figure of its kind"))
}

/// Reads `barriers.csv`.
pub(crate) fn read_barriers(text: &str) -> Result<Vec<Barrier>, String> {
    read("barriers.csv", text, Barrier::missing, |row: &mut Barrier, column, cell| {
        let Some((family, name)) = column.split_once(':') else { return row.set(column, cell) };
        match (family, cell) {
            ("kind" | "store" | "retired" | "bucket", "") => {}
            ("kind", _) => drop(row.kinds.insert(name.to_owned(), required(column, cell)?)),
            ("store", _) => drop(row.stores.insert(name.to_owned(), required(column, cell)?)),
            ("retired", _) => drop(row.retirements.insert(name.to_owned(), required(column, cell)?)),
            ("bucket", _) => drop(row.buckets.insert(name.to_owned(), required(column, cell)?)),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Reads `samples.csv`.
pub(crate) fn read_looks(text: &str) -> Result<Vec<Look>, String> {
    read("samples.csv", text, Look::missing, Look::set)
}

fn read<T: Default>(
    name: &str,
    text: &str,
    missing: fn(&[&str]) -> Option<&'static str>,
    set: impl Fn(&mut T, &str, &str) -> Result<bool, String>,
) -> Result<Vec<T>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, header)) = lines.next() else { return Err(format!("{name} is empty; it must begin with a header")) };
    let header: Vec<&str> = header.split(',').collect();
    if let Some(column) = missing(&header) {
        return Err(format!("{name} line 1: no column {column}"));
    }
    let mut rows = Vec::new();
    for (at, line) in lines {
        let wrong = |why: String| format!("{name} line {}: {why}", at + 1);
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != header.len() {
            return Err(wrong(format!("{} cells under a header of {}", cells.len(), header.len())));
        }
        let mut row = T::default();
        for (column, cell) in header.iter().zip(cells) {
            match set(&mut row, column, cell) {
                Ok(true) => {}
                Ok(false) => return Err(format!("{name} line 1: unknown column {column}")),
                Err(why) => return Err(wrong(why)),
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// `barriers.csv`. Columns without a single figure are left out.
pub(crate) fn barriers_csv(rows: &[Barrier]) -> String {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for column in Barrier::COLUMNS {
        columns.push(((*column).to_owned(), rows.iter().map(|row| row.cell(column)).collect()));
    }
    let families: std::collections::BTreeSet<String> = rows.iter().flat_map(Barrier::families).collect();
    for column in families {
        let cells = rows.iter().map(|row| row.family_cell(&column)).collect();
        columns.push((column, cells));
    }
    let last_required = 4;
    let is_told = |(at, (_, cells)): &(usize, (String, Vec<String>))| {
        *at < last_required || cells.iter().any(|cell| !cell.is_empty())
    };
    let kept: Vec<_> = columns.into_iter().enumerate().filter(is_told).map(|(_, column)| column).collect();
    let mut out = kept.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",") + "\n";
    for row in 0..rows.len() {
        out += &kept.iter().map(|(_, cells)| cells[row].as_str()).collect::<Vec<_>>().join(",");
        out.push('\n');
    }
    out
}

/// `samples.csv`.
pub(crate) fn looks_csv(rows: &[Look]) -> String {
    let mut out = Look::COLUMNS.join(",") + "\n";
    for row in rows {
        out += &Look::COLUMNS.iter().map(|column| row.cell(column)).collect::<Vec<_>>().join(",");
        out.push('\n');
    }
    out
}

impl Barrier {
    fn families(&self) -> impl Iterator<Item = String> + '_ {
        let kinds = self.kinds.keys().map(|name| format!("kind:{name}"));
        let stores = self.stores.keys().map(|name| format!("store:{name}"));
        let retirements = self.retirements.keys().map(|name| format!("retired:{name}"));
        kinds.chain(stores).chain(retirements).chain(self.buckets.keys().map(|name| format!("bucket:{name}")))
    }

    fn family_cell(&self, column: &str) -> String {
        let (family, name) = column.split_once(':').expect("families have a colon");
        match family {
            "kind" => self.kinds.get(name).map(ToString::to_string),
            "store" => self.stores.get(name).map(ToString::to_string),
            "retired" => self.retirements.get(name).map(ToString::to_string),
            _ => self.buckets.get(name).map(ToString::to_string),
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Barrier {
        let kind = Kind { spawned: 9, finished: 4, owned: None, orphans: Some(-1) };
        let store = Store { size: Some(6), cap: None, high_water: Some(7) };
        let lingering = "31/9f2c58ff88/let-go/212000//acknowledgements".parse().ok();
        let retired = Retired { count: 7, late: 1, max_ms: 31_000 };
        Barrier {
            epoch: 3,
            events: 150,
            drained: Some(true),
            heap_bytes: Some(4_000_000),
            latency_p50_ms: Some(1.25),
            id: Some("ae58ff8833".into()),
            lingering,
            edges: "9f2c58ff88+0011223344".parse().ok(),
            trimmed: Some(true),
            retirements: BTreeMap::from([("slow-peer".to_owned(), retired)]),
            kinds: BTreeMap::from([("connection".to_owned(), kind)]),
            stores: BTreeMap::from([("addresses".to_owned(), store)]),
            buckets: BTreeMap::from([("otel".to_owned(), 12)]),
            ..Barrier::default()
        }
    }

    #[test]
    fn barriers_survive_the_round_trip_and_absent_figures_stay_absent() {
        let csv = barriers_csv(&[row(), Barrier { epoch: 4, ..Barrier::default() }]);
        assert!(!csv.contains("rss_bytes"), "a column nobody filled is left out: {csv}");
        let back = read_barriers(&csv).unwrap();
        assert_eq!(back[0], row());
        assert!(back[0].lingering.is_some() && back[0].edges.as_ref().is_some_and(|edges| edges.0.len() == 2));
        assert_eq!((back[1].heap_bytes, back[1].kinds.len()), (None, 0));
    }

    #[test]
    fn looks_survive_the_round_trip() {
        let connection = Some(Kind { spawned: 5, finished: 1, owned: Some(4), orphans: Some(0) });
        let look = Look { at_ms: 1, tasks: Some(9), connection, ..Look::default() };
        assert_eq!(read_looks(&looks_csv(std::slice::from_ref(&look))).unwrap(), [look]);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_column() {
        let error = |text: &str| read_barriers(text).unwrap_err();
        assert_eq!(error(""), "barriers.csv is empty; it must begin with a header");
        assert_eq!(error("epoch,node,events\n"), "barriers.csv line 1: no column at_ms");
        let header = "epoch,node,events,at_ms,tasks";
        assert_eq!(
            error(&format!("{header}\n1,0,5,9,4\n2,0,x,9,4\n")),
            "barriers.csv line 3: events is `x`, which is no figure of its kind"
        );
        assert_eq!(error(&format!("{header}\n1,0,5,9\n")), "barriers.csv line 2: 4 cells under a header of 5");
        assert_eq!(error(&format!("{header},haep\n1,0,5,9,4,\n")), "barriers.csv line 1: unknown column haep");
        assert!(error(&format!("{header},kind:dial\n1,0,5,9,4,1/2\n")).contains("kind:dial is `1/2`"));
    }
}
