//! The program as its users meet it: the real binary, its exit codes, its lines, its control API.
//!
//! Each file is a chapter. `process.rs` starts and reads the processes; nothing here looks inside them.

mod abuse;
mod api;
mod collector;
mod config;
mod control;
mod demo;
mod door;
mod http;
mod offline;
mod process;
mod reload;
mod service;
mod settings;
mod soak;
mod state_dir;
mod stock;
mod talk;
mod telemetry;
mod up;
