//! What the soak harness shares with other test programs: the attacker, and figures of a process as the kernel tells
//! them. The verbs, the storms and the judgement are the binary's own.

pub mod attack;
pub mod proc_figures;
