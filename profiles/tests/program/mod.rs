//! The program under test, run as its users run it.

use std::{
    fmt::{self, Display, Formatter},
    process::Command,
};

/// What it said, and how it ended.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Display for Told {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs it to its end. Profiles are left where `cargo test` keeps what tests make, in a directory of this test.
pub(crate) fn run(args: &[&str]) -> Told {
    let out = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), env!("CARGO_CRATE_NAME"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_perennial-profiles"));
    command.args(args);
    if matches!(args, ["measure" | "ladder", ..]) {
        command.args(["--out", &out]);
    }
    let output = command.output().expect("the program was built with this test");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Told { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Fails with everything the program said.
pub(crate) fn expect_exit(code: i32, told: &Told) {
    println!("{}", told.stdout);
    assert_eq!(told.code, Some(code), "{told}");
}
