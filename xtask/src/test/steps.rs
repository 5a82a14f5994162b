//! What each step runs.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use super::Stage;
use super::cargo_test;
use super::summary::Outcome;
use crate::image;
use crate::manifests;
use crate::privilege::Privilege;
use crate::process;
use crate::setup::{self, Part};
use crate::vm;

/// Packages whose integration tests work on the live kernel.
const LIVE: [&str; 2] = ["lab", "tracer-user"];

pub(super) fn fmt(stage: &Stage<'_>) -> Result<Outcome> {
    passes(cargo(stage).args(["fmt", "--all", "--check"]))
}

pub(super) fn clippy(stage: &Stage<'_>) -> Result<Outcome> {
    // The default members: all of user space.
    process::run(cargo(stage).args(["clippy", "--all-targets", "--", "-Dwarnings"]))?;
    // A workspace of its own, so that nothing else builds it.
    let mut fuzz = cargo(stage);
    fuzz.args(["clippy", "--all-targets", "--locked"])
        .arg("--manifest-path")
        .arg(stage.workspace.root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(&stage.workspace.target_dir);
    passes(fuzz.args(["--", "-Dwarnings"]))
}

pub(super) fn clippy_ebpf(stage: &Stage<'_>) -> Result<Outcome> {
    let mut cargo = cargo(stage);
    cargo.args([
        "clippy",
        "--release",
        "--target=bpfel-unknown-none",
        "-Zbuild-std=core",
    ]);
    for package in &stage.packages.ebpf {
        cargo.args(["--package", &package.name]);
    }
    let arch = env::consts::ARCH;
    passes(
        cargo
            // Apart from the build's own, whose flags differ.
            .arg("--target-dir")
            .arg(stage.workspace.target_dir.join("ebpf/clippy"))
            .args(["--", "-Dwarnings"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!(
                    "--cfg=bpf_target_arch=\"{arch}\"\x1f--check-cfg=cfg(bpf_target_arch,values(any()))"
                ),
            ),
    )
}

pub(super) fn unit(stage: &Stage<'_>) -> Result<Outcome> {
    let mut count = cargo_test::run(cargo_test(stage).args(["--lib", "--bins"]))?;
    // Integration tests of the packages that do no I/O.
    let pure: Vec<_> = stage
        .packages
        .user
        .iter()
        .filter(|package| !LIVE.contains(&package.name.as_str()) && package.has_integration_tests())
        .collect();
    if !pure.is_empty() {
        let mut cargo = cargo_test(stage);
        for package in pure {
            cargo.args(["--package", &package.name]);
        }
        count += cargo_test::run(cargo.args(["--test", "*"]))?;
    }
    count.outcome()
}

pub(super) fn live(stage: &Stage<'_>) -> Result<Outcome> {
    let privilege = match Privilege::find("a test on the live kernel") {
        Ok(privilege) => privilege,
        Err(error) if env::var_os("TRACER_REQUIRE_ALL").is_some() => return Err(error),
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let needs = [
        Part::Toolchain,
        Part::BpfLinker,
        Part::SystemPrograms,
        Part::Promtool,
    ];
    setup::ensure(stage.workspace, &needs)?;
    let mut cargo = cargo_test(stage);
    cargo.env("TRACER_PROMTOOL", setup::promtool()?);
    for package in LIVE {
        cargo.args(["--package", package]);
    }
    // One at a time: the kernel's drops are the whole machine's.
    cargo.args(["--test", "*", "--", "--test-threads=1"]);
    privilege.apply_to_runner(&mut cargo, &stage.rustc);
    cargo_test::run(&mut cargo)?.outcome()
}

/// The agent's image in a real cluster. These tests are marked as ignored, so that `live` passes them by.
pub(super) fn e2e(stage: &Stage<'_>) -> Result<Outcome> {
    let required = env::var_os("TRACER_REQUIRE_ALL").is_some();
    let privilege = match Privilege::find("a test in a whole cluster") {
        Ok(privilege) => privilege,
        Err(error) if required => return Err(error),
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    if process::find("apt-get").is_none() && !required {
        return Ok(Outcome::Skipped(
            "its Kubernetes is made of Debian's packages, and there is no apt-get here".to_owned(),
        ));
    }
    let needs = [
        Part::Toolchain,
        Part::BpfLinker,
        Part::SystemPrograms,
        Part::Kubernetes,
    ];
    setup::ensure(stage.workspace, &needs)?;
    let mut cargo = cargo_test(stage);
    cargo
        .args(["--package", "tracer-user", "--test", "e2e"])
        .args(["--", "--ignored", "--test-threads=1"])
        .env("TRACER_KUBERNETES", setup::kubernetes()?)
        .env("TRACER_IMAGE", image::host(stage.workspace)?);
    privilege.apply_to_runner(&mut cargo, &stage.rustc);
    cargo_test::run(&mut cargo)?.outcome()
}

/// The oldest kernel there is and the newest; `cargo xtask vm` runs more of it.
pub(super) fn vm(stage: &Stage<'_>) -> Result<Outcome> {
    let required = env::var_os("TRACER_REQUIRE_ALL").is_some();
    let why_not = if env::consts::ARCH != "x86_64" {
        Some("it boots x86_64 kernels, on x86_64 only".to_owned())
    } else if process::find("apt-get").is_none() {
        Some("the kernels are Debian's, and there is no apt-get here".to_owned())
    } else {
        Privilege::find("a guest in QEMU")
            .err()
            .map(|error| format!("{error:#}"))
    };
    match why_not {
        Some(why) if required => bail!(why),
        Some(why) => return Ok(Outcome::Skipped(why)),
        None => {}
    }
    let results = vm::check(stage.workspace, &vm::Arguments::short())?;
    let lines: Vec<_> = results.iter().map(|result| result.line.as_str()).collect();
    let lines = lines.join("; ");
    let more = results.iter().map(|result| result.more.as_str());
    let more = more.collect::<String>();
    let text = format!("{lines}\n{more}").trim_end().to_owned();
    Ok(if results.iter().all(|result| result.good) {
        Outcome::Passed(text)
    } else {
        Outcome::Failed(text)
    })
}

pub(super) fn examples(stage: &Stage<'_>) -> Result<Outcome> {
    cargo_test::run(cargo_test(stage).arg("--doc"))?.outcome()
}

pub(super) fn documentation(stage: &Stage<'_>) -> Result<Outcome> {
    passes(
        cargo(stage)
            .args(["doc", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

/// What is written twice is the same; the alerts are well-formed, fire on what they are for and on nothing
/// else, and say it. Metrics, dashboard and manifests have tests of their own, some of which ask promtool.
pub(super) fn deploy(stage: &Stage<'_>) -> Result<Outcome> {
    manifests::run(stage.workspace, &manifests::Arguments { check: true })?;
    let prometheus = stage.workspace.root.join("deploy/prometheus");
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "tests.yaml"],
    ] {
        process::run(
            Command::new(setup::promtool()?)
                .args(arguments)
                .current_dir(&prometheus),
        )?;
    }
    let mut cargo = cargo_test(stage);
    cargo
        .args(["--package", "tracer-user", "--test", "deploy"])
        .env("TRACER_PROMTOOL", setup::promtool()?);
    cargo_test::run(&mut cargo)?.outcome()
}

pub(super) fn licences(stage: &Stage<'_>) -> Result<Outcome> {
    passes(deny(stage)?.args(["check", "licenses", "bans", "sources"]))
}

pub(super) fn advisories(stage: &Stage<'_>) -> Result<Outcome> {
    // Fetched by itself, so that a network that is not there is told from an advisory that is.
    let mut fetch = Command::new("timeout");
    let deny_program = setup::cargo_deny(&stage.rustc)?;
    fetch
        .current_dir(&stage.workspace.root)
        .arg("60")
        .arg(deny_program)
        .args(["--workspace", "fetch", "db"])
        .env("GIT_TERMINAL_PROMPT", "0");
    if let Err(error) = process::output(&mut fetch) {
        let text = format!("{error:#}");
        // cargo-deny's words, and timeout's own exit status.
        if !text.contains("failed to fetch") && !text.contains("exit status: 124") {
            return Err(error);
        }
        eprintln!("{text}");
        return Ok(Outcome::Skipped(
            "the advisory database cannot be fetched here".to_owned(),
        ));
    }
    passes(deny(stage)?.args(["check", "--disable-fetch", "advisories"]))
}

fn passes(command: &mut Command) -> Result<Outcome> {
    process::run(command)?;
    Ok(Outcome::Passed(String::new()))
}

fn cargo(stage: &Stage<'_>) -> Command {
    stage.workspace.cargo()
}

fn cargo_test(stage: &Stage<'_>) -> Command {
    let mut cargo = cargo(stage);
    cargo
        .args(["test", "--no-fail-fast"])
        // A snapshot that differs is a failure, not a new file in the tree.
        .env("INSTA_UPDATE", "no");
    cargo
}

/// cargo-deny, over the whole workspace.
fn deny(stage: &Stage<'_>) -> Result<Command> {
    let mut command = stage.workspace.command(setup::cargo_deny(&stage.rustc)?);
    command.arg("--workspace");
    Ok(command)
}
