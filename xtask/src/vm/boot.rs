//! A guest: its initramfs, the host's root as its own, and what it wrote to its console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Files;
use crate::privilege::Privilege;
use crate::process;
use crate::workspace::Workspace;

/// PID 1 of the guest at first.
const INIT: &str = include_str!("init.sh");
/// And then.
const GUEST: &str = include_str!("guest.sh");

/// The guest's memory; shared with who serves it files.
const MEMORY: &str = "1500M";

/// Modules without which there is no root, where they are not built in.
const ROOT_MODULES: [&str; 7] = [
    "virtio/virtio",
    "virtio/virtio_ring",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "fuse/fuse",
    "fuse/virtiofs",
];

/// What a guest is given to run.
pub(super) struct Load<'a> {
    /// A static `tracer`.
    pub(super) tracer: &'a Path,
    /// Test programs.
    pub(super) programs: &'a [PathBuf],
    /// Parts of the names of their tests; all are run where there are none.
    pub(super) tests: &'a [String],
    /// Without hardware virtualization a guest takes 5 to 20 times as long as this machine.
    pub(super) limit: Duration,
}

/// Boots; what the guest writes to its console is added to `console`, and shown.
pub(super) fn boot(
    workspace: &Workspace,
    privilege: Privilege,
    files: &Files,
    load: &Load<'_>,
    console: &mut String,
) -> Result<()> {
    let folder = workspace.target_dir.join("vm").join(&files.version);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let initramfs = initramfs(&folder, files, load.tracer)?;
    let guest = folder.join("guest.sh");
    fs::write(&guest, GUEST)?;
    process::run(Command::new("chmod").arg("+x").arg(&guest))?;

    // In the guest it is at the same place.
    let tracer =
        fs::canonicalize(load.tracer).with_context(|| load.tracer.display().to_string())?;
    let socket = format!("tracer-vm-{}-{}", std::process::id(), files.version);
    let socket = std::env::temp_dir().join(socket);
    let _served = Served::start(workspace, privilege, &socket)?;
    let programs = load
        .programs
        .iter()
        .map(|program| program.to_string_lossy());
    let append = format!(
        "console=ttyS0 panic=-1 quiet guest={} modules={} tracer={} programs={} tests={}",
        guest.display(),
        files.root.display(),
        tracer.display(),
        programs.collect::<Vec<_>>().join(","),
        load.tests.join(","),
    );
    let mut qemu = privilege.command(workspace, "timeout");
    qemu.arg(load.limit.as_secs().to_string())
        .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi"])
        // QEMU 7.2 corrupts Linux 6.12 now and then through cmpxchg16b.
        .args(["-cpu", "max,cx16=off", "-machine", "q35", "-m", MEMORY])
        .args(["-smp", "1", "-display", "none", "-no-reboot"])
        .args(["-nodefaults", "-serial", "stdio"])
        .arg("-object")
        .arg(format!(
            "memory-backend-memfd,id=memory,size={MEMORY},share=on"
        ))
        .args(["-numa", "node,memdev=memory"])
        .arg("-chardev")
        .arg(format!("socket,id=root,path={}", socket.display()))
        .args(["-device", "vhost-user-fs-pci,chardev=root,tag=root"])
        .args(["-append", &append])
        .arg("-kernel")
        .arg(&files.image)
        .arg("-initrd")
        .arg(&initramfs);
    let label = format!("{} | ", files.version);
    let ended = process::run_watched(&mut qemu, &label, |line| {
        console.push_str(line);
        console.push('\n');
    });
    match ended.map_err(|error| format!("{error:#}")) {
        Ok(()) => Ok(()),
        // `timeout`'s own status.
        Err(error) if error.contains("exit status: 124") => bail!(
            "the guest did not come to its end within {} s; `cargo xtask vm --limit` gives it more",
            load.limit.as_secs()
        ),
        Err(error) => bail!("QEMU did not run to its end: {error}"),
    }
}

fn initramfs(folder: &Path, files: &Files, tracer: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for made in ["bin", "proc", "sys", "dev", "tmp", "host", "modules"] {
        fs::create_dir_all(root.join(made))?;
    }
    let busybox = process::find("busybox").context("busybox is missing")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    fs::copy(tracer, root.join("bin/tracer"))?;
    for module in ROOT_MODULES {
        let (kind, name) = module.split_once('/').unwrap_or_default();
        let parent = if kind == "fuse" { "fs" } else { "drivers" };
        let file = files.modules.join("kernel").join(parent).join(kind);
        let file = file.join(format!("{name}.ko"));
        if file.exists() {
            fs::copy(file, root.join(format!("modules/{name}.ko")))?;
        }
    }
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

/// The host's root, served to a guest until it is dropped.
struct Served {
    server: Child,
    socket: PathBuf,
}

impl Served {
    fn start(workspace: &Workspace, privilege: Privilege, socket: &Path) -> Result<Self> {
        // With QEMU up to 7.2, in a package of its own since.
        let program = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"]
            .into_iter()
            .find(|program| Path::new(program).exists())
            .context("virtiofsd is missing: install Debian's qemu-system-common or virtiofsd")?;
        let old = program.starts_with("/usr/lib/qemu");
        let mut command = privilege.command(workspace, program);
        command.arg(format!("--socket-path={}", socket.display()));
        if old {
            command.args([
                "-o",
                "source=/",
                "-o",
                "sandbox=chroot",
                "-o",
                "cache=always",
            ]);
        } else {
            command.args(["--shared-dir=/", "--sandbox=chroot", "--cache=always"]);
        }
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let mut served = Self {
            server,
            socket: socket.to_owned(),
        };
        let patience = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            if let Some(status) = served.server.try_wait()? {
                bail!("{program} ended with {status}");
            }
            if Instant::now() > patience {
                bail!("{program} does not come up");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It ends with its guest; this is for a guest that never came.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_file(&self.socket);
    }
}
