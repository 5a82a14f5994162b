//! Anonymous network namespaces: held by a file descriptor of this process and by nothing else, so
//! that the kernel takes them down with the process however it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::command;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of the lab's own.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    // The thread that made the namespace lives as long as the namespace: it is the parent of what
    // `spawn` starts, so that the parent-death signal comes with the namespace's end.
    keeper: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
}

impl Netns {
    /// Makes a new, empty namespace. `name` is for messages only; nothing is written to the file
    /// system.
    ///
    /// Fails without `CAP_SYS_ADMIN`.
    pub fn new(name: &str) -> Result<Self> {
        let (made, receive) = mpsc::channel();
        let (jobs, queue) = mpsc::channel::<Job>();
        let keeper = thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn(move || {
                let result = unshare_network();
                let failed = result.is_err();
                if made.send(result).is_err() || failed {
                    return;
                }
                for job in queue {
                    job();
                }
            })
            .context("cannot start a thread")?;
        let file = receive
            .recv()
            .context("the namespace's thread ended early")?
            .with_context(|| format!("cannot make the network namespace of {name}"))?;
        let netns = Self {
            name: name.to_owned(),
            file,
            keeper: Some((jobs, keeper)),
        };
        Ok(netns)
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that leads to the namespace while this process lives (`/proc/PID/fd/N`), as
    /// `nsenter --net=` and `ip link ... netns` take it.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_fd().as_raw_fd()
        )
        .into()
    }

    /// The namespace's inode number: what the kernel calls `netns` in its own reports.
    pub fn inode(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata
            .with_context(|| format!("cannot stat the namespace of {}", self.name))?
            .ino())
    }

    /// Runs `f` on a thread of its own inside the namespace and waits for it. Sockets made there
    /// stay in the namespace wherever they are used later.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let run = || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter the namespace of {}", self.name))?;
                Ok(f())
            };
            thread::Builder::new()
                .name(self.name.clone())
                .spawn_scoped(scope, run)
                .context("cannot start a thread")?
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs a network tool (`ip`, `nft`, `iptables`, ...) to its end inside the namespace and
    /// returns what it printed. A failure carries the command and its stderr.
    pub fn run<S: AsRef<OsStr> + Sync>(&self, tool: &str, args: &[S]) -> Result<String> {
        self.run_with_input(tool, args, "")
    }

    /// As [`Netns::run`], with `input` on the tool's stdin.
    pub fn run_with_input<S: AsRef<OsStr> + Sync>(
        &self,
        tool: &str,
        args: &[S],
        input: &str,
    ) -> Result<String> {
        self.enter(|| command::run(tool, args, input))?
            .with_context(|| format!("in the namespace of {}", self.name))
    }

    /// Starts a program inside the namespace, as a process of the host would run there
    /// (`hostNetwork`): only the network is the namespace's. `configure` adds arguments, pipes and
    /// environment. The kernel kills the program when the namespace goes, or this process.
    pub fn spawn(
        &self,
        program: impl AsRef<OsStr>,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Child> {
        let shown = program.as_ref().to_string_lossy().into_owned();
        // setpriv (util-linux, essential in Debian) sets the signal in the child, which would
        // otherwise take an `unsafe` hook between fork and exec. Where this process ended before that,
        // no signal comes any more: the shell sees that its parent is another one.
        let mut child = Command::new(command::find("setpriv")?);
        child
            .args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c"])
            .arg("[ \"$PPID\" = \"$0\" ] && exec \"$@\"")
            .arg(std::process::id().to_string())
            .arg(program);
        configure(&mut child);
        self.on_keeper(move || child.spawn())?
            .with_context(|| format!("cannot start `{shown}` in the namespace of {}", self.name))
    }

    /// Sets a sysctl of the namespace, e.g. `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    /// Sets several sysctls of the namespace.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                // /proc/sys/net shows the namespace of the thread that opens it.
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value)
                    .with_context(|| format!("cannot set sysctl {key}={value}"))?;
            }
            Ok(())
        })?
    }

    fn on_keeper<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (send, receive) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = send.send(f());
        });
        self.keeper
            .as_ref()
            .and_then(|(jobs, _)| jobs.send(job).ok())
            .and_then(|()| receive.recv().ok())
            .ok_or_else(|| anyhow!("the thread of namespace {} has ended", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.keeper.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}

fn unshare_network() -> Result<File> {
    // SAFETY: only the calling thread's network namespace changes. No file descriptor table, memory
    // or other resource that Rust code relies on is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("unshare(CLONE_NEWNET) failed: this needs root (CAP_SYS_ADMIN)")?;
    File::open("/proc/thread-self/ns/net").context("cannot open /proc/thread-self/ns/net")
}
