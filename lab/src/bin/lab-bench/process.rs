//! A program under measurement.

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::Lab;
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take until it is idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// A spell in which an idle program takes less than a hundredth of a CPU.
const SPELL: Duration = Duration::from_millis(200);

/// A program on the node; stopped with this value.
pub(crate) struct Process {
    child: Child,
    said: Said,
    /// From its start to its word that it is ready.
    pub(crate) start: Duration,
    /// What it needs for as long as it runs.
    needs: Option<Box<dyn Any>>,
}

/// Where its stderr goes.
enum Said {
    Here(BufReader<ChildStderr>),
    /// To a file, for one that says too much to be read at the end.
    File(PathBuf),
}

impl Process {
    /// Starts a program whose stderr goes to a file.
    pub(crate) fn spawn(
        lab: &Lab,
        program: &Path,
        errors: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let start = Instant::now();
        let file = File::create(errors)?;
        let child = lab.spawn_on_node(program, |command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(file);
            configure(command);
        })?;
        Ok(Self {
            child,
            said: Said::File(errors.to_owned()),
            start: start.elapsed(),
            needs: None,
        })
    }

    /// Starts a program, and waits for a line on stderr that has `ready` in it.
    pub(crate) fn start(
        lab: &Lab,
        program: &str,
        ready: &str,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let start = Instant::now();
        let mut child = lab.spawn_on_node(program, |command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            configure(command);
        })?;
        let mut said = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut all = String::new();
        loop {
            let before = all.len();
            if said.read_line(&mut all)? == 0 {
                bail!("`{program}` ended early ({}): {all}", child.wait()?);
            }
            if all[before..].contains(ready) {
                break;
            }
        }
        Ok(Self {
            child,
            said: Said::Here(said),
            start: start.elapsed(),
            needs: None,
        })
    }

    /// Keeps something for as long as it runs.
    pub(crate) fn with(mut self, needed: impl Any) -> Self {
        self.needs = Some(Box::new(needed));
        self
    }

    /// The program's stdout, where `configure` made it a pipe.
    pub(crate) fn stdout(&mut self) -> Result<std::process::ChildStdout> {
        self.child.stdout.take().context("no stdout")
    }

    /// CPU time until now, of all its threads, in user space and in the kernel: to the nanosecond.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let process = libc::pid_t::try_from(self.child.id())?;
        let mut clock: libc::clockid_t = 0;
        // SAFETY: it writes one number to where it is told, which is ours.
        let error = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error))
                .context("a program without a CPU clock");
        }
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: as above.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot read a program's CPU clock");
        }
        Ok(Duration::new(
            u64::try_from(time.tv_sec)?,
            u32::try_from(time.tv_nsec)?,
        ))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until what it does after its start is done.
    pub(crate) fn until_idle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.cpu()?;
            std::thread::sleep(SPELL);
            if self.cpu()?.saturating_sub(before) < SPELL / 100 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "it is not idle after {} s",
                PATIENCE.as_secs()
            );
        }
    }

    /// A line of its `/proc/PID/status`, in MiB.
    pub(crate) fn memory_mib(&self, key: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: u32 = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .with_context(|| format!("no {key} in /proc/PID/status"))?
            .parse()?;
        Ok(f64::from(kib) / 1024.0)
    }

    /// Ends it as Ctrl-C does; returns what it said on stderr since it was ready.
    pub(crate) fn stop(mut self) -> Result<String> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let mut said = String::new();
        if let Said::Here(stderr) = &mut self.said {
            stderr.read_to_string(&mut said)?;
        }
        let status = self.child.wait()?;
        if let Said::File(path) = &self.said {
            said = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        }
        // Some of the peers let the signal end them.
        ensure!(
            status.success() || status.code().is_none() || status.code() == Some(130),
            "it ended with {status}: {said}"
        );
        Ok(said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it was stopped, it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
