//! `doctor`: what this machine can and cannot do for a soak, tried out and not guessed.
//!
//! `machine.rs` finds out, `checks.rs` says what it means; here it is printed.

mod checks;
mod machine;

use anyhow::Result;

use self::{
    checks::{Check, State, checks},
    machine::Machine,
};

pub(crate) const HELP: &str = "\
Hosts, a small disk and a wrong clock are made, tried and taken away again; namespaces and mounts that
killed runs have left are removed. Exit codes: 0 every scenario can run here, 69 some cannot.";

/// Looks at the machine, prints what it means, and chooses the exit code.
pub(crate) async fn run(json: bool) -> Result<u8> {
    let machine = Machine::look().await?;
    let checks = checks(&machine);
    let lacks = checks.iter().filter(|check| check.state == State::Lacking).count();
    if json {
        println!("{}", serde_json::json!({"v": 1, "complete": lacks == 0, "checks": checks}));
    } else {
        print!("{}", text(&checks));
        match lacks {
            0 => println!("\nevery scenario can run here"),
            1 => println!("\none thing is missing; the scenarios named there cannot run here"),
            _ => println!("\n{lacks} things are missing; the scenarios named there cannot run here"),
        }
    }
    Ok(if lacks == 0 { 0 } else { crate::args::LACKING })
}

fn text(checks: &[Check]) -> String {
    let mut out = String::new();
    for Check { state, name, found, means, mend } in checks {
        out += &format!("{:8} {name:21} {found}\n{:30} {means}\n", state.word(), "");
        if let Some(mend) = mend {
            out += &format!("{:30} mend: {mend}\n", "");
        }
    }
    out
}
