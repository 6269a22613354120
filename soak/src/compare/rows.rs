//! The courses of a comparison and the rows each of them fills. One course is one measurement of one subject; what it does
//! is in its own file.

mod burst;
mod floods;
mod idle;
mod kills;
mod mass;
mod quiet;
mod respawn;
mod retire;
mod rotation;

use super::{
    row::Row,
    world::{Figures, World},
};
use crate::{cluster::Fault, flood::victim::Programs, plan::Identity};

/// One kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Rotation,
    KillSame,
    KillFresh,
    Quiet,
    Idle,
    Settled,
    Retire,
    Burst,
    MassHalf,
    MassMost,
    FloodSpoofed,
    FloodIdle,
    FloodRest,
    Respawn,
}

/// What is known of a course without running it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub name: &'static str,
    pub rows: &'static [Row],
    /// What a quick run makes smaller.
    pub quick: &'static str,
    /// About how long one measurement takes, in seconds, full and quick. Only for the time that is left.
    pub seconds: (u64, u64),
}

impl Course {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 14] = [
        Self::Rotation,
        Self::KillSame,
        Self::KillFresh,
        Self::Quiet,
        Self::Idle,
        Self::Settled,
        Self::Retire,
        Self::Burst,
        Self::MassHalf,
        Self::MassMost,
        Self::FloodSpoofed,
        Self::FloodIdle,
        Self::FloodRest,
        Self::Respawn,
    ];

    pub(crate) fn about(self) -> About {
        let about = |name, rows, quick, seconds| About { name, rows, quick, seconds };
        match self {
            Self::Rotation => about("rotation", &rotation::ROWS, rotation::QUICK, (250, 22)),
            Self::KillSame => about("kill same", &kills::SAME, kills::QUICK, (330, 20)),
            Self::KillFresh => about("kill fresh", &kills::FRESH, kills::QUICK, (330, 20)),
            Self::Quiet => about("quiet", &quiet::GROWTH, quiet::GROWTH_QUICK, (365, 18)),
            Self::Idle => about("idle", &idle::ROWS, idle::QUICK, (8, 5)),
            Self::Settled => about("settled", &quiet::ENDS, quiet::ENDS_QUICK, (190, 16)),
            Self::Retire => about("retire", &retire::ROWS, retire::QUICK, (55, 40)),
            Self::Burst => about("burst", &burst::ROWS, burst::QUICK, (40, 6)),
            Self::MassHalf => about("mass 50 %", &mass::HALF, mass::QUICK, (50, 30)),
            Self::MassMost => about("mass 80 %", &mass::MOST, mass::QUICK, (50, 30)),
            Self::FloodSpoofed => about("spoofed", &floods::SPOOFED, floods::QUICK, (25, 18)),
            Self::FloodIdle => about("idle flood", &floods::IDLE, floods::QUICK, (38, 20)),
            Self::FloodRest => about("its rest", &floods::REST, floods::REST_QUICK, (85, 20)),
            Self::Respawn => about("respawn", &respawn::ROWS, respawn::QUICK, (60, 8)),
        }
    }

    /// Whether a node's own timeouts end what is measured, if the machine is late: idle strangers are closed after 5 s.
    pub(crate) fn is_hurried(self) -> bool {
        self == Self::Idle
    }

    /// Measures one subject once.
    pub(crate) async fn measure(self, world: &World<'_>) -> Result<Figures, Fault> {
        match self {
            Self::Rotation => rotation::measure(world).await,
            Self::KillSame => kills::measure(world, Identity::Same).await,
            Self::KillFresh => kills::measure(world, Identity::Fresh).await,
            Self::Quiet => quiet::growth(world).await,
            Self::Idle => idle::measure(world).await,
            Self::Settled => quiet::ends(world).await,
            Self::Retire => retire::measure(world).await,
            Self::Burst => burst::measure(world).await,
            Self::MassHalf => mass::measure(world, 50).await,
            Self::MassMost => mass::measure(world, 80).await,
            Self::FloodSpoofed => floods::spoofed(world).await,
            Self::FloodIdle => floods::idle(world).await,
            Self::FloodRest => floods::rest(world).await,
            Self::Respawn => respawn::measure(world).await,
        }
    }
}

/// The parties of `flood`, with the subject in the place of ours: both understand the arguments of `perennial up`.
fn programs(world: &World<'_>) -> Programs {
    Programs {
        ours: world.subject.bin.clone(),
        stock: world.subject.bin.clone(),
        soak: world.soak.clone(),
        has_known: world.subject.has_known,
        up_args: Vec::new(),
    }
}
