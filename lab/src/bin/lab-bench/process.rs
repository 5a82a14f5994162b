//! A program under measurement.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::Lab;
use rustix::process::{Pid, Signal, kill_process};

/// What the kernel counts CPU time in: `USER_HZ`, 100 on all architectures that tracer runs on.
const TICK: Duration = Duration::from_millis(10);

/// A program on the node; stopped with this value.
pub(crate) struct Process {
    child: Child,
    said: Said,
    /// From its start to its word that it is ready.
    pub(crate) start: Duration,
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
        })
    }

    /// The program's stdout, where `configure` made it a pipe.
    pub(crate) fn stdout(&mut self) -> Result<std::process::ChildStdout> {
        self.child.stdout.take().context("no stdout")
    }

    /// CPU time until now, in user space and in the kernel (proc(5), `stat`, fields 14 and 15).
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, after) = stat.rsplit_once(')').context("a stat without a name")?;
        let ticks: u32 = after
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u32>)
            .sum::<Result<_, _>>()?;
        Ok(TICK * ticks)
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
