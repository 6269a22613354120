//! What the soak harness shares with other test programs: the attacker, the places where nodes run, figures of a process
//! as the kernel tells them, and statistics without assumptions. The verbs, the storms and the judgement are the binary's
//! own.

pub mod attack;
pub mod netns;
pub mod place;
pub mod proc_figures;
pub mod stats;
