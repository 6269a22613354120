//! Scenarios of whole nodes on loopback: ours beside stock ones, and against peers that mean harm. One file per theme.
//!
//! Every scenario builds its nodes in a `World` and ends with `world.finish()`, which fails while anything still lives.

mod approval;
mod backends;
mod capacity;
mod crowd;
mod door;
mod door_known;
mod door_lists;
mod hostile;
mod interop;
mod load;
mod redial;
mod relays;
mod respawn;
mod rotation;
mod strangers;
mod supervision;
mod wire_vectors;
mod world_guard;

/// The binary that runs one node in a process of its own.
const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
