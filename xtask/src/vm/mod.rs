//! `cargo xtask vm`: tracer on other kernels, in QEMU.
//!
//! Each kernel boots from an initramfs that holds busybox and the static `tracer`; there `tracer doctor` runs,
//! and `tracer watch` has to capture a packet that the kernel drops.

mod kernel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::process;
use crate::setup::{self, Part};
use crate::workspace::Workspace;
use kernel::Kernel;

/// PID 1 of the guest.
const INIT: &str = include_str!("init.sh");

/// Without hardware virtualization a guest is done in half a minute.
const SECONDS: &str = "150";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to boot
    #[arg(long, value_enum, default_value_t = Kernel::All)]
    kernel: Kernel,
    /// Take this static `tracer` instead of building one
    #[arg(long, value_name = "FILE")]
    tracer: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("`cargo xtask vm` boots x86_64 kernels, and runs on x86_64 only");
    }
    setup::ensure(workspace, &[Part::Vm])?;
    let tracer = match &arguments.tracer {
        Some(file) => file.clone(),
        None => build::release(workspace, "x86_64-unknown-linux-musl")?,
    };
    let folder = workspace.target_dir.join("vm");
    let initramfs = initramfs(&folder, &tracer)?;

    let kernels = match arguments.kernel {
        Kernel::All => &Kernel::EACH[..],
        ref one => std::slice::from_ref(one),
    };
    let mut table = Vec::new();
    let mut all_good = true;
    for kernel in kernels {
        let console = boot(&kernel.image()?, &initramfs)?;
        print!("{console}");
        let said = |what: &str| {
            console
                .lines()
                .find_map(|line| line.trim().strip_prefix("VM ")?.strip_prefix(what))
                .map_or("-", str::trim)
        };
        let good = said("doctor ") == "0" && said("watch ") == "0" && said("captured ") == "yes";
        all_good &= good;
        table.push(format!(
            "{:<28} doctor {:<3} watch {:<3} captured {:<3}  {}",
            said("kernel "),
            said("doctor "),
            said("watch "),
            said("captured "),
            if good { "ok" } else { "FAILED" }
        ));
    }
    println!("\n{}", table.join("\n"));
    Ok(if all_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn initramfs(folder: &Path, tracer: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for made in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(made))?;
    }
    let busybox = process::find("busybox").context("busybox is missing")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    fs::copy(tracer, root.join("bin/tracer"))?;
    fs::write(root.join("init"), INIT)?;
    let archive = folder.join("initramfs.cpio");
    process::run(
        Command::new("sh")
            .args([
                "-c",
                "chmod +x init && find . | busybox cpio -o -H newc >\"$0\"",
            ])
            .arg(&archive)
            .current_dir(&root),
    )?;
    Ok(archive)
}

/// Boots, and returns what the guest wrote to its console.
fn boot(image: &Path, initramfs: &Path) -> Result<String> {
    let output = Command::new("timeout")
        .args([SECONDS, "qemu-system-x86_64", "-accel", "tcg,thread=multi"])
        // QEMU 7.2 corrupts Linux 6.12 now and then through cmpxchg16b.
        .args(["-cpu", "max,cx16=off", "-machine", "q35", "-m", "1G"])
        .args(["-smp", "1", "-display", "none", "-no-reboot"])
        .args(["-nodefaults", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .output()
        .context("cannot run qemu-system-x86_64")?;
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{} did not run to its end ({}):\n{console}{}",
            image.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(console)
}
