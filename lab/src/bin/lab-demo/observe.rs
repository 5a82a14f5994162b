//! The real `tracer watch`, and waiting for what it should show.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::Lab;
use serde_json::Value;

use crate::tell;

/// How long anything that must come may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the record is read while nothing is printed.
const RECORD_INTERVAL: Duration = Duration::from_millis(50);

/// `tracer watch`, running on the node.
pub(crate) struct Watch {
    child: Child,
    lines: Receiver<Line>,
    record: PathBuf,
}

enum Line {
    Out(String),
    Err(String),
}

/// Shows the first drop of each flow: retransmissions repeat themselves.
#[derive(Default)]
struct Excerpt {
    seen: HashSet<String>,
    /// Whether the lines that continue a drop belong to one that was shown.
    showing: bool,
    left_out: usize,
}

impl Excerpt {
    fn show(&mut self, line: &Line) {
        let (Line::Out(text) | Line::Err(text)) = line;
        if !text.starts_with(' ') {
            // All but the time.
            let story = text
                .split_once(' ')
                .map_or("", |(_, story)| story)
                .to_owned();
            self.showing = self.seen.insert(story);
            self.left_out += usize::from(!self.showing);
        }
        if self.showing {
            tell::shown(text);
        }
    }

    fn end(&self) {
        if self.left_out > 0 {
            tell::shown(&format!("... and {} more of the same", self.left_out));
        }
    }
}

impl Watch {
    /// Starts it and waits until it is attached.
    pub(crate) fn start(lab: &Lab, tracer: &Path, cluster: &Path, record: &Path) -> Result<Self> {
        let mut child = lab.spawn_on_node(tracer, |command| {
            command
                .args(["watch", "--cluster"])
                .arg(cluster)
                .arg("--record")
                .arg(record)
                .env("NODE_NAME", "node-1")
                .env("COLUMNS", "100")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        })?;
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let out = sender.clone();
        forward(stdout.context("no stdout")?, move |line| {
            out.send(Line::Out(line)).is_ok()
        });
        forward(stderr.context("no stderr")?, move |line| {
            sender.send(Line::Err(line)).is_ok()
        });
        let watch = Self {
            child,
            lines,
            record: record.to_owned(),
        };
        watch.until("tracer to say that it watches", |line| match line {
            Line::Err(text) => text.contains("watching drops").then(|| tell::shown(text)),
            Line::Out(_) => None,
        })?;
        Ok(watch)
    }

    /// Shows what it prints until it has recorded a drop of each of these classes.
    pub(crate) fn show_until(&self, classes: &[&str]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut excerpt = Excerpt::default();
        loop {
            let recorded = self.classes()?;
            if classes.iter().all(|class| recorded.contains(*class)) {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "waited {PATIENCE:?} for drops of {classes:?}; those recorded are of {recorded:?}"
                );
            }
            // A drop is printed before it is recorded: no line may follow the one that completes the record.
            match self.lines.recv_timeout(RECORD_INTERVAL) {
                Ok(line) => excerpt.show(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "tracer watch ended before drops of {classes:?}; those recorded are of {recorded:?}"
                    )
                }
            }
        }
        // What was recorded may still wait here to be shown.
        while let Ok(line) = self.lines.try_recv() {
            excerpt.show(&line);
        }
        excerpt.end();
        Ok(())
    }

    /// The classes of the drops it recorded so far.
    fn classes(&self) -> Result<BTreeSet<String>> {
        let drops = self.drops()?;
        let classes = drops.iter().filter_map(|drop| drop["class"].as_str());
        Ok(classes.map(str::to_owned).collect())
    }

    /// What it recorded so far, whole lines only.
    pub(crate) fn drops(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.record)
            .with_context(|| format!("cannot read {}", self.record.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).context("tracer recorded a line that is no JSON")
            })
            .collect()
    }

    /// Ends it as Ctrl-C does, and returns everything it recorded.
    pub(crate) fn stop(mut self) -> Result<Vec<Value>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tracer watch ended with {status}");
        }
        self.drops()
    }

    fn until<T>(&self, what: &str, mut is: impl FnMut(&Line) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = is(&line) {
                        return Ok(found);
                    }
                    let (Line::Out(text) | Line::Err(text)) = line;
                    said.push_str(&text);
                    said.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("waited {PATIENCE:?} for {what}; it said:\n{said}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("waited for {what}, and it ended; it said:\n{said}")
                }
            }
        }
    }
}

fn forward(
    pipe: impl std::io::Read + Send + 'static,
    mut each: impl FnMut(String) -> bool + Send + 'static,
) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
            if !each(line) {
                break;
            }
        }
    });
}
