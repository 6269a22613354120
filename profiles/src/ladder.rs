//! Which call sites hold more the more often something happens. `[pure]`
//!
//! Five heaps after 50 to 250 round trips: a cache that fills once is as large on the last rungs as on the one before, and
//! a table that doubles now and then is not larger on each. What is larger on every rung is a leak, and has a name.

use std::{collections::BTreeMap, rc::Rc};

use crate::heap::{Heap, Site, Size};

/// A call site that holds more on every rung than on the one before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Climber {
    /// As it is on the last rung.
    pub(crate) site: Site,
    /// From the first rung to the last, per round trip.
    pub(crate) bytes_per_trip: f64,
    pub(crate) blocks_per_trip: f64,
}

/// Climbers of `rungs`, each of them after so many round trips; the steepest first.
pub(crate) fn climbers(rungs: &[(usize, Heap)]) -> Vec<Climber> {
    let [(first_trips, first), .., (last_trips, last)] = rungs else { return Vec::new() };
    let trips = (last_trips - first_trips) as f64;
    let sizes: Vec<BTreeMap<Vec<Rc<str>>, Size>> = rungs.iter().map(|(_, heap)| by_symbols(heap)).collect();
    let first = by_symbols(first);
    let mut climbers: Vec<Climber> = last
        .sites
        .iter()
        .filter(|site| {
            let symbols = site.symbols();
            let size = |of: &BTreeMap<_, Size>| of.get(&symbols).copied().unwrap_or_default();
            sizes.windows(2).all(|pair| size(&pair[1]).bytes > size(&pair[0]).bytes)
        })
        .map(|site| {
            let before = first.get(&site.symbols()).copied().unwrap_or_default();
            let per_trip = |now: u64, before: u64| (now - before.min(now)) as f64 / trips;
            Climber {
                site: site.clone(),
                bytes_per_trip: per_trip(site.size.bytes, before.bytes),
                blocks_per_trip: per_trip(site.size.blocks, before.blocks),
            }
        })
        .collect();
    climbers.sort_by(|a, b| b.bytes_per_trip.total_cmp(&a.bytes_per_trip));
    climbers
}

fn by_symbols(heap: &Heap) -> BTreeMap<Vec<Rc<str>>, Size> {
    heap.sites.iter().map(|site| (site.symbols(), site.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Frame;

    /// Heaps after 50, 100, … round trips, with these bytes at each site.
    fn rungs(sites: &[(&str, [u64; 5])]) -> Vec<(usize, Heap)> {
        let site = |symbol: &str, bytes| Site {
            frames: vec![Frame { symbol: symbol.into(), place: None }],
            size: Size { bytes, blocks: bytes / 10, allocated: 1000 },
        };
        let heap =
            |rung: usize| Heap { sites: sites.iter().map(|(symbol, bytes)| site(symbol, bytes[rung])).collect() };
        (0..5).map(|rung| (50 * (rung + 1), heap(rung))).collect()
    }

    #[test]
    fn only_what_is_larger_on_every_rung_climbs() {
        let climbers = climbers(&rungs(&[
            ("leak", [500, 1000, 1500, 2000, 2500]),
            ("a cache that is full", [500, 1000, 1000, 1000, 1000]),
            ("a table that doubles", [512, 512, 1024, 1024, 2048]),
            ("a saw", [500, 1000, 900, 1000, 1100]),
            ("a smaller leak", [1, 2, 3, 4, 5]),
        ]));
        let named: Vec<&str> = climbers.iter().map(|climber| &*climber.site.frames[0].symbol).collect();
        assert_eq!(named, ["leak", "a smaller leak"]);
        assert_eq!((climbers[0].bytes_per_trip, climbers[0].blocks_per_trip), (10.0, 1.0));
    }

    #[test]
    fn what_is_not_there_on_the_first_rung_climbs_as_well() {
        let climbers = climbers(&rungs(&[("late", [0, 10, 20, 30, 40])]));
        assert_eq!(climbers.len(), 1);
        assert_eq!(climbers[0].bytes_per_trip, 0.2);
    }

    #[test]
    fn one_rung_is_no_ladder() {
        assert_eq!(climbers(&rungs(&[("leak", [1, 2, 3, 4, 5])])[..1]), []);
        assert_eq!(climbers(&[]), []);
    }
}
