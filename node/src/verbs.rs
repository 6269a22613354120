//! What a person or a script does with a running node beyond asking one question: talk on topics, watch, check, end it.
//!
//! One file per verb. The verbs that ask one question and print one answer are in `client.rs`.

pub(crate) mod doctor;
pub(crate) mod drain;
mod progress;
pub(crate) mod publish;
pub(crate) mod qr;
pub(crate) mod reload;
pub(crate) mod subscribe;
pub(crate) mod top;
pub(crate) mod watch;
