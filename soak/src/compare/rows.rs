//! The courses of a comparison and the rows each of them fills. One course is one measurement of one subject; what it does
//! is in its own file.

mod respawn;
mod rotation;

use super::{
    row::Row,
    world::{Figures, World},
};
use crate::cluster::Fault;

/// One kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Rotation,
    Respawn,
}

impl Course {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 2] = [Self::Rotation, Self::Respawn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rotation => "rotation",
            Self::Respawn => "respawn",
        }
    }

    /// The rows it fills.
    pub(crate) fn rows(self) -> &'static [Row] {
        match self {
            Self::Rotation => &rotation::ROWS,
            Self::Respawn => &respawn::ROWS,
        }
    }

    /// What a quick run makes smaller.
    pub(crate) fn quick(self) -> &'static str {
        match self {
            Self::Rotation => rotation::QUICK,
            Self::Respawn => respawn::QUICK,
        }
    }

    /// About how long one measurement takes, in seconds, full and quick. Only for the time that is left.
    pub(crate) fn seconds(self) -> (u64, u64) {
        match self {
            Self::Rotation => (240, 20),
            Self::Respawn => (30, 3),
        }
    }

    /// Measures one subject once.
    pub(crate) async fn measure(self, world: &World<'_>) -> Result<Figures, Fault> {
        match self {
            Self::Rotation => rotation::measure(world).await,
            Self::Respawn => respawn::measure(world).await,
        }
    }
}
