//! What the rows of the table of slots come to, booked row by row. `[pure]`

use std::collections::HashMap;

use super::{
    prefix::{GroupKey, Groups},
    seats::{Knock, Seat, Stage},
};
use crate::access::Standing;

/// What the rows come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Everything but speculative and lingering attempts.
    pub(crate) total: usize,
    pub(crate) inbound: usize,
    /// Of these, not of known remotes. A handshake is nobody's yet.
    pub(crate) unknown: usize,
    pub(crate) handshakes: usize,
    pub(crate) speculative: usize,
    pub(crate) lingering: usize,
    /// What is left of speculative attempts that failed.
    pub(crate) remains: usize,
    pub(crate) dials: usize,
    pub(crate) listeners: Vec<ListenerTally>,
    /// Unknown and not exempt, per customer and per site.
    fine: HashMap<GroupKey, usize>,
    coarse: HashMap<GroupKey, usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ListenerTally {
    pub(crate) in_use: usize,
    pub(crate) handshakes: usize,
}

/// Whether a row comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    fn book(self, count: &mut usize) {
        match self {
            Way::In => *count += 1,
            Way::Out => *count -= 1,
        }
    }

    /// Groups of whom nobody is left are forgotten.
    fn book_group(self, groups: &mut HashMap<GroupKey, usize>, key: GroupKey) {
        let count = groups.entry(key).or_default();
        self.book(count);
        if *count == 0 {
            groups.remove(&key);
        }
    }
}

impl Tally {
    pub(super) fn new(listeners: usize) -> Self {
        Self { listeners: vec![ListenerTally::default(); listeners], ..Self::default() }
    }

    /// Handshakes, and what is left of those that failed. Speculative ones aside.
    pub(crate) fn shaking(&self) -> usize {
        self.handshakes + self.lingering
    }

    /// What unknown remotes hold of this customer, and of this site.
    pub(super) fn held(&self, groups: Groups) -> (usize, usize) {
        let of = |by: &HashMap<GroupKey, usize>, key| by.get(key).copied().unwrap_or_default();
        (of(&self.fine, &groups.fine), of(&self.coarse, &groups.coarse))
    }

    /// A row comes, or goes as it came.
    pub(super) fn book(&mut self, row: &Seat, way: Way) {
        match row.stage {
            Stage::Handshake => way.book(&mut self.handshakes),
            Stage::Dial => way.book(&mut self.dials),
            Stage::Speculative => return way.book(&mut self.speculative),
            Stage::Lingering { had_slot: false } => return way.book(&mut self.remains),
            Stage::Lingering { had_slot: true } => {
                way.book(&mut self.lingering);
                if let Some(knock) = &row.knock {
                    way.book(&mut self.listeners[knock.listener.0].handshakes);
                }
                return;
            }
            Stage::Inbound | Stage::Outbound => {}
        }
        way.book(&mut self.total);
        if let Some(knock) = &row.knock {
            self.book_inbound(row, knock, way);
        }
    }

    fn book_inbound(&mut self, row: &Seat, knock: &Knock, way: Way) {
        way.book(&mut self.inbound);
        let listener = &mut self.listeners[knock.listener.0];
        way.book(&mut listener.in_use);
        if row.stage == Stage::Handshake {
            way.book(&mut listener.handshakes);
        }
        if row.standing != Standing::Known {
            way.book(&mut self.unknown);
            if !knock.is_exempt && knock.is_validated {
                way.book_group(&mut self.fine, knock.groups.fine);
                way.book_group(&mut self.coarse, knock.groups.coarse);
            }
        }
    }
}
