//! The program as its users meet it: the real binary, its exit codes, its lines, its control socket.
//!
//! Each file is a chapter. `process.rs` starts and reads the processes; nothing here looks inside them.

mod collector;
mod control;
mod demo;
mod door;
mod offline;
mod process;
mod settings;
mod soak;
mod state_dir;
mod stock;
mod telemetry;
mod up;
