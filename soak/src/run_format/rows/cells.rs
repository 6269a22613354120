//! Cells with more than one word in them: a kind of task, a store, the retirements of a cause, a connection that lingers,
//! an active view. Words are parted by a slash, ids by a plus. `[pure]`

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    str::FromStr,
};

/// One kind of task in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub spawned: u64,
    pub finished: u64,
    /// `None` where nothing owns tasks of this kind by name.
    pub owned: Option<u64>,
    pub orphans: Option<i64>,
}

impl Kind {
    /// `spawned − finished`; negative only when the counters lie.
    pub(crate) fn alive(&self) -> i64 {
        self.spawned as i64 - self.finished as i64
    }
}

/// One bounded map, queue or cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Store {
    pub size: Option<u64>,
    pub cap: Option<u64>,
    pub high_water: Option<u64>,
}

/// The connections that ended by one cause, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    pub count: u64,
    /// Of these, how many took longer than the node's own timeouts allow.
    pub late: u64,
    pub max_ms: u64,
}

/// A connection that should be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lingering {
    pub number: u64,
    pub peer: String,
    /// How it came to be about to end, and how long ago. `None`: nobody said that it should.
    pub departed: Option<(String, u64)>,
    /// Milliseconds since its peer left the view; `None`: it is in it.
    pub outside_view_ms: Option<u64>,
    /// What its task waits in.
    pub phase: String,
}

impl Lingering {
    /// Who, since when, and what for.
    pub(crate) fn sentence(&self) -> String {
        let seconds = |ms: u64| ms / 1000;
        let since = match (&self.departed, self.outside_view_ms) {
            (Some((departure, ms)), _) => format!("{departure} {} s ago", seconds(*ms)),
            (None, Some(ms)) => format!("peer left the view {} s ago", seconds(ms)),
            (None, None) => "peer in the view".into(),
        };
        format!("conn {} -> {}, {since}, waiting in {}", self.number, self.peer, self.phase)
    }
}

/// The beginnings of the ids in an active view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edges(pub BTreeSet<String>);

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [spawned, finished, owned, orphans] = parts(text)?;
        let (spawned, finished) = (whole(spawned)?.ok_or(())?, whole(finished)?.ok_or(())?);
        let orphans = if orphans.is_empty() { None } else { Some(orphans.parse().map_err(drop)?) };
        Ok(Self { spawned, finished, owned: whole(owned)?, orphans })
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orphans = self.orphans.map(|orphans| orphans.to_string()).unwrap_or_default();
        write!(f, "{}/{}/{}/{orphans}", self.spawned, self.finished, shown(self.owned))
    }
}

impl FromStr for Store {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [size, cap, high_water] = parts(text)?;
        Ok(Self { size: whole(size)?, cap: whole(cap)?, high_water: whole(high_water)? })
    }
}

impl Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", shown(self.size), shown(self.cap), shown(self.high_water))
    }
}

fn parts<const N: usize>(text: &str) -> Result<[&str; N], ()> {
    text.split('/').collect::<Vec<_>>().try_into().map_err(drop)
}

fn whole(text: &str) -> Result<Option<u64>, ()> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(drop) }
}

fn shown(figure: Option<u64>) -> String {
    figure.map(|figure| figure.to_string()).unwrap_or_default()
}

impl FromStr for Retired {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [count, late, max_ms] = parts(text)?;
        let must = |text| whole(text)?.ok_or(());
        Ok(Self { count: must(count)?, late: must(late)?, max_ms: must(max_ms)? })
    }
}

impl Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.count, self.late, self.max_ms)
    }
}

impl FromStr for Lingering {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [number, peer, departure, departed_ms, outside_view_ms, phase] = parts(text)?;
        let departed = whole(departed_ms)?.map(|ms| (departure.to_owned(), ms));
        let (number, outside_view_ms) = (whole(number)?.ok_or(())?, whole(outside_view_ms)?);
        Ok(Self { number, peer: peer.to_owned(), departed, outside_view_ms, phase: phase.to_owned() })
    }
}

impl Display for Lingering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, peer, outside_view_ms, phase, .. } = self;
        let (departure, ms) = self.departed.as_ref().map_or(("", None), |(departure, ms)| (departure, Some(*ms)));
        write!(f, "{number}/{peer}/{departure}/{}/{}/{phase}", shown(ms), shown(*outside_view_ms))
    }
}

impl FromStr for Edges {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let ids = text.split('+').filter(|id| *id != "-");
        ids.map(|id| if id.is_empty() { Err(()) } else { Ok(id.to_owned()) }).collect::<Result<_, _>>().map(Self)
    }
}

impl Display for Edges {
    /// An empty view is a dash: an empty cell is one that nobody told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("-"),
            false => f.write_str(&self.0.iter().map(String::as_str).collect::<Vec<_>>().join("+")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_view_is_told_and_survives() {
        assert_eq!(Edges::default().to_string(), "-");
        assert_eq!("-".parse(), Ok(Edges::default()));
        let two: Edges = "a+b".parse().unwrap();
        assert_eq!((two.to_string().as_str(), two.0.len()), ("a+b", 2));
        assert!("a++b".parse::<Edges>().is_err());
    }

    #[test]
    fn what_lingers_is_a_sentence() {
        let left: Lingering = "31/9f2c58ff88///212400/open".parse().unwrap();
        assert_eq!(left.sentence(), "conn 31 -> 9f2c58ff88, peer left the view 212 s ago, waiting in open");
        assert_eq!(left.to_string(), "31/9f2c58ff88///212400/open");
        let let_go: Lingering = "31/9f2c58ff88/let-go/9000/212400/grace".parse().unwrap();
        assert_eq!(let_go.sentence(), "conn 31 -> 9f2c58ff88, let-go 9 s ago, waiting in grace");
        assert!("31/9f2c".parse::<Lingering>().is_err() && "1/2/x".parse::<Retired>().is_err());
    }
}
