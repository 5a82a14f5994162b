//! The system programs that the live tests and the demo drive.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::process;
use crate::workspace::Workspace;

/// A program, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 9] = [
    ("iptables-nft", "iptables"),
    ("iptables-legacy", "iptables"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("sysctl", "procps"),
    ("modprobe", "kmod"),
    ("openssl", "openssl"),
];

/// What C in dependencies is compiled with for aarch64.
const CROSS: [(&str, &str); 2] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-gcc", "libc6-dev-arm64-cross"),
];

/// What boots other kernels.
const VM: [(&str, &str); 2] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
];

/// What the bench compares tracer with.
const PEERS: [(&str, &str); 3] = [
    ("bpftrace", "bpftrace"),
    ("dropwatch", "dropwatch"),
    ("perf", "linux-perf"),
];

/// The programs of the live tests.
pub(super) fn ensure(workspace: &Workspace) -> Result<bool> {
    install(workspace, &PROGRAMS, "the live tests need")
}

/// The C compiler for aarch64.
pub(super) fn ensure_cross(workspace: &Workspace) -> Result<bool> {
    install(workspace, &CROSS, "building for aarch64 needs")
}

/// QEMU, and busybox for its guests.
pub(super) fn ensure_vm(workspace: &Workspace) -> Result<bool> {
    install(workspace, &VM, "booting other kernels needs")
}

/// What the bench compares tracer with.
pub(super) fn ensure_peers(workspace: &Workspace) -> Result<bool> {
    install(workspace, &PEERS, "the bench compares tracer with")
}

fn install(workspace: &Workspace, programs: &[(&str, &'static str)], why: &str) -> Result<bool> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(false);
    }
    let names = missing.join(", ");
    if process::find("apt-get").is_none() {
        bail!(
            "{why} programs that are missing here; install what Debian calls {names} \
             with this system's package manager"
        );
    }
    let privilege = Privilege::find(&format!("installing {names}"))?;
    eprintln!("setup: installing the Debian packages {names}");
    let apt = |arguments: &[&str]| {
        // sudo drops the variable, so it is set behind it.
        let mut command = privilege.command(workspace, "env");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]);
        process::run(command.args(arguments))
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);

    let had_lists = has_package_lists();
    if !had_lists {
        apt(&["update"])?;
    }
    let mut installed = apt(&install);
    if installed.is_err() && had_lists {
        eprintln!("setup: the package lists may be old; fetching them and trying once more");
        apt(&["update"])?;
        installed = apt(&install);
    }
    installed.with_context(|| format!("could not install {names}"))?;
    Ok(true)
}

/// Fetches the package lists where there are none.
pub(super) fn refresh_lists(workspace: &Workspace) -> Result<()> {
    if has_package_lists() {
        return Ok(());
    }
    let privilege = Privilege::find("fetching Debian's package lists")?;
    let mut command = privilege.command(workspace, "apt-get");
    process::run(command.args(["--quiet=2", "update"]))
}

/// Unpacks packages into a folder without installing them: installing some would start a server, and needs
/// root.
pub(super) fn unpack(workspace: &Workspace, packages: &[&str], into: &Path) -> Result<()> {
    if process::find("apt-get").is_none() {
        let names = packages.join(", ");
        bail!("{names} can be had from Debian's packages only, and there is no apt-get here");
    }
    refresh_lists(workspace)?;
    process::run(
        Command::new("apt-get")
            .args(["--quiet=2", "download"])
            .args(packages)
            .current_dir(into),
    )?;
    for package in fs::read_dir(into)? {
        let package = package?.path();
        if package.extension().is_some_and(|end| end == "deb") {
            process::run(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .args([&package, into]),
            )?;
            fs::remove_file(&package)?;
        }
    }
    Ok(())
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> = programs
        .iter()
        .filter(|(program, _)| process::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

/// Images often come without them.
fn has_package_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|files| {
        files
            .filter_map(Result::ok)
            .any(|file| file.file_name().to_string_lossy().contains("_Packages"))
    })
}
