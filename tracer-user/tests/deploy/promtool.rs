//! promtool, as `cargo xtask test` brings it.
#![expect(
    clippy::print_stdout,
    reason = "a test's own output: why it was skipped"
)]

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Where it is.
pub(crate) struct Promtool(OsString);

impl Promtool {
    /// The one that `TRACER_PROMTOOL` names, else the system's own; without either the test is skipped.
    pub(crate) fn find() -> Option<Self> {
        let found = env::var_os("TRACER_PROMTOOL").or_else(|| {
            let path = env::var_os("PATH")?;
            let found = env::split_paths(&path).map(|folder| folder.join("promtool"));
            found
                .into_iter()
                .find(|file| file.is_file())
                .map(Into::into)
        });
        assert!(
            found.is_some() || env::var_os("TRACER_REQUIRE_ALL").is_none(),
            "there is no promtool"
        );
        if found.is_none() {
            println!("SKIPPED: there is no promtool; `cargo xtask test --only deploy` brings it");
        }
        found.map(Self)
    }

    /// What it makes of `input`.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(&self.0)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("an end")
    }
}

/// Everything it said.
pub(crate) fn said(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    said.concat()
}
