//! `cargo xtask vm`: tracer on other kernels, in QEMU.
//!
//! In each, `tracer doctor` runs, and `tracer watch` has to capture a packet that the kernel drops: the static
//! program, from an initramfs. Then the guest takes this machine's root for its own, read-only, and runs the
//! live tests and those of the kernel side alone there.

mod boot;
mod kernel;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::build;
use crate::failures::Failures;
use crate::privilege::Privilege;
use crate::process;
use crate::setup::{self, Part};
use crate::workspace::Workspace;
use boot::Load;
use kernel::{Files, Kernel};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to boot
    #[arg(long, value_enum, default_value_t = Kernel::All)]
    kernel: Kernel,
    /// Take this static `tracer` instead of building one
    #[arg(long, value_name = "FILE")]
    tracer: Option<PathBuf>,
    /// Seconds a guest may take
    #[arg(long, default_value_t = 1200, value_name = "SECONDS")]
    limit: u64,
    /// Run only the tests whose names contain one of these
    #[arg(value_name = "TEST")]
    tests: Vec<String>,
}

impl Arguments {
    /// What is part of `cargo xtask test`: the oldest kernel and the newest, and the tests of what differs from
    /// kernel to kernel, each hook's once. The floods take an emulated machine minutes, and whose rules are whose
    /// is read from tables that look the same everywhere: both are run on this one.
    pub(crate) fn short() -> Self {
        Self {
            kernel: Kernel::Ends,
            tracer: None,
            limit: 1200,
            tests: [
                "agent::",
                "enforcers::",
                "pages::",
                "privilege::",
                "rules::",
            ]
            .map(str::to_owned)
            .into(),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let results = check(workspace, arguments)?;
    println!();
    for result in &results {
        println!("{}", result.line);
        print!("{}", result.more);
    }
    Ok(if results.iter().all(|result| result.good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How it went on a kernel.
pub(crate) struct Checked {
    /// Whether all was well.
    pub(crate) good: bool,
    /// What was found.
    pub(crate) line: String,
    /// What is to be known besides, in lines of their own.
    pub(crate) more: String,
}

/// Boots the kernels.
pub(crate) fn check(workspace: &Workspace, arguments: &Arguments) -> Result<Vec<Checked>> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("`cargo xtask vm` boots x86_64 kernels, and runs on x86_64 only");
    }
    let privilege = Privilege::find("serving this machine's files to a guest")?;
    setup::ensure(
        workspace,
        &[
            Part::Toolchain,
            Part::BpfLinker,
            Part::SystemPrograms,
            Part::Vm,
        ],
    )?;
    let tracer = match &arguments.tracer {
        Some(file) => file.clone(),
        None => build::release(workspace, "x86_64-unknown-linux-musl")?,
    };
    let programs = test_programs(workspace)?;
    let load = Load {
        tracer: &tracer,
        programs: &programs,
        tests: &arguments.tests,
        limit: Duration::from_secs(arguments.limit),
    };
    let kernels = match arguments.kernel {
        Kernel::All => &Kernel::EACH[..],
        Kernel::Ends => &[Kernel::Bullseye, Kernel::Newest],
        ref one => std::slice::from_ref(one),
    };
    let files: Vec<_> = kernels
        .iter()
        .map(|kernel| kernel.files())
        .collect::<Result<_>>()?;
    let check_one = |files: &Files| {
        let mut console = String::new();
        let ended = boot::boot(workspace, privilege, files, &load, &mut console);
        let told = Told::of(&console);
        let mut more = told.more();
        if let Err(error) = &ended {
            let _ = writeln!(more, "    {error:#}");
        }
        Checked {
            good: ended.is_ok() && told.is_good(),
            line: format!("{:<28} {}", files.version, told.line()),
            more,
        }
    };
    let mut results = Vec::new();
    // Each has one virtual CPU, and is busy with it.
    for side_by_side in files.chunks(thread::available_parallelism()?.get()) {
        let ended: Vec<_> = thread::scope(|scope| {
            let guests: Vec<_> = side_by_side
                .iter()
                .map(|files| scope.spawn(|| check_one(files)))
                .collect();
            guests
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for one in ended {
            results.push(one.map_err(|_| anyhow!("a guest's thread panicked"))?);
        }
    }
    Ok(results)
}

/// What a guest said of itself.
#[derive(Debug, Default)]
struct Told {
    doctor: String,
    captured: String,
    tests: String,
    passed: usize,
    skipped: Vec<String>,
    failures: Failures,
}

impl Told {
    fn of(console: &str) -> Self {
        let said = |what: &str| {
            console
                .lines()
                .find_map(|line| line.trim().strip_prefix("VM ")?.strip_prefix(what))
                .map_or(String::new(), |word| word.trim().to_owned())
        };
        let passed = console
            .lines()
            .filter(|line| line.starts_with("test ") && line.trim_end().ends_with("... ok"))
            .count();
        let skipped = console.lines().filter_map(|line| {
            let (_, why) = line.split_once("SKIPPED: ")?;
            Some(why.trim().to_owned())
        });
        let mut failures = Failures::default();
        console.lines().for_each(|line| failures.see(line));
        Self {
            doctor: said("doctor "),
            captured: said("captured "),
            tests: said("tests "),
            passed,
            skipped: skipped.collect(),
            failures,
        }
    }

    fn is_good(&self) -> bool {
        self.doctor == "0" && self.captured == "yes" && self.tests == "0" && self.passed > 0
    }

    fn line(&self) -> String {
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        format!(
            "doctor {:<3} captured {:<3} tests {:>2} passed, exit {:<3} {}",
            or_dash(&self.doctor),
            or_dash(&self.captured),
            self.passed,
            or_dash(&self.tests),
            if self.is_good() { "ok" } else { "FAILED" }
        )
    }

    /// What did not run, and what failed.
    fn more(&self) -> String {
        let mut more = String::new();
        for why in &self.skipped {
            let _ = writeln!(more, "    skipped: {why}");
        }
        for line in self.failures.to_string().lines() {
            let _ = writeln!(more, "    {line}");
        }
        more
    }
}

/// Builds the tests that a guest runs; where they are.
fn test_programs(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let mut cargo: Command = workspace.cargo();
    let messages = process::output(cargo.args([
        "test",
        "--package=tracer-user",
        "--test=capture",
        "--test=live",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    let built: Vec<_> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .collect();
    let program = |name: &str| {
        built
            .iter()
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("cargo built no tests named {name}"))
    };
    Ok([program("capture")?, program("live")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_good_only_if_it_says_so() {
        let told = Told::of(
            "VM kernel 6.1\r\nVM doctor 0\r\nVM captured yes\r\ntest rules::a ... ok\r\nSKIPPED: no tcx\r\nVM tests 0\r\n",
        );
        assert!(told.is_good(), "{told:?}");
        assert_eq!(told.passed, 1);
        assert_eq!(told.skipped, ["no tcx"]);
        assert_eq!(told.more(), "    skipped: no tcx\n");
        assert!(!Told::of("VM doctor 0\nVM captured yes\nVM tests 0\n").is_good());
        assert!(!Told::default().is_good());
    }
}
