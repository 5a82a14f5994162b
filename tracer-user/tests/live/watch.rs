//! The `tracer` binary at work in the lab: started as a node's DaemonSet would start it, its JSON read
//! back line by line.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use lab::{BROKEN_POLICY, Family, Lab, Wiring, kernel};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tracer_policy::model::Protocol;

use crate::expect::same;
use crate::program::tracer;

/// How long the next line may take, also on an emulated machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A lab, where this process may build one; else says why not. With `TRACER_REQUIRE_ALL=1` that is no
/// excuse.
pub fn lab(wiring: Wiring) -> Option<Lab> {
    let required = std::env::var_os("TRACER_REQUIRE_ALL").is_some();
    if !rustix::process::geteuid().is_root() && !required {
        // Not captured by the test harness, so that it is seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: network namespaces need root");
        return None;
    }
    Some(Lab::new(wiring).expect("a lab"))
}

/// `tracer watch -o json` on the node under test.
pub struct Watch {
    child: Child,
    lines: Receiver<String>,
    said: Receiver<String>,
    // Drops of other namespaces, for messages.
    strangers: RefCell<Vec<String>>,
    started: Timestamp,
    netns: u64,
    heard: Vec<(Answer, Family)>,
    // Packets whose answer kprobes may hear, and those where they said that they may have missed it.
    asked: Cell<u64>,
    missed: Cell<u64>,
    // Holds the manifests while the program may read them.
    _folder: TempDir,
}

impl Watch {
    /// Starts it on the lab's manifests and the incident's policy, and returns once it is attached.
    pub fn start(lab: &Lab, primary: Family) -> Result<Self> {
        let mut heard = Vec::new();
        for answer in [Answer::Icmp, Answer::Reset] {
            for family in [Family::V4, Family::V6] {
                if hears(answer, family) {
                    heard.push((answer, family));
                }
            }
        }
        let folder = tempfile::tempdir()?;
        let cluster = folder.path().join("cluster.yaml");
        std::fs::write(
            &cluster,
            format!(
                "{}---\n{BROKEN_POLICY}",
                lab.manifests_with_primary(primary)
            ),
        )?;
        let mut child = lab.spawn_on_node(tracer(), |tracer| {
            tracer
                .args(["watch", "-o", "json", "--cluster"])
                .arg(&cluster)
                .env("NODE_NAME", "node-1")
                .env("TRACER_FOLD", "50ms")
                .env_remove("TRACER_REASONS")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        })?;
        let (line, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        let (word, said) = channel();
        let stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                if word.send(text).is_err() {
                    break;
                }
            }
        });
        let mut words = Vec::new();
        while !words.iter().any(|line: &String| line.contains("watching ")) {
            match said.recv_timeout(PATIENCE) {
                Ok(line) => words.push(line),
                Err(_) => bail!("tracer did not attach; it said: {}", words.join("\n")),
            }
        }
        Ok(Self {
            child,
            lines,
            said,
            strangers: RefCell::default(),
            started: Timestamp::now(),
            netns: lab.node().inode()?,
            heard,
            asked: Cell::default(),
            missed: Cell::default(),
            _folder: folder,
        })
    }

    /// What `drop` says of the sender's answer: `answer` is what a rule sends, if it sends any.
    pub fn tell(
        &self,
        drop: &mut Value,
        answer: Option<Answer>,
        family: Family,
        protocol: Protocol,
    ) -> Told {
        let hears = |answer| self.heard.contains(&(answer, family));
        match answer {
            Some(answer) if hears(answer) => {
                drop["action"] = "reject".into();
                drop["reply"] = match (answer, family) {
                    (Answer::Reset, _) => "tcp reset",
                    (Answer::Icmp, Family::V4) => "icmp port-unreachable",
                    (Answer::Icmp, Family::V6) => "icmp6 port-unreachable",
                }
                .into();
                Told::Answered
            }
            Some(_) => Told::Nothing,
            // That nobody was told is known where nothing goes unheard.
            None => {
                if hears(Answer::Icmp) && (protocol != Protocol::Tcp || hears(Answer::Reset)) {
                    drop["action"] = "drop".into();
                }
                Told::Nothing
            }
        }
    }

    /// The drops of `packets` packets: reads until that many were reported, checks what differs from
    /// run to run, and folds what is then the same.
    pub fn drops(&self, packets: u64) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut counted = 0;
        while counted < packets {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{packets} packets were dropped, tracer reported {counted}: {events:#?}; of other \
                         namespaces: {:#?}",
                        self.strangers.take()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => bail!("tracer ended"),
            };
            if let Some((event, count)) = self.checked(&line)? {
                counted += count;
                fold(&mut events, event, count);
            }
        }
        ensure!(
            counted == packets,
            "{packets} packets were dropped, tracer reported {counted}: {events:#?}"
        );
        Ok(events)
    }

    /// Fails where the events are not the one that is wanted. Those that differed only in what the caller took out
    /// are one.
    ///
    /// The kernel runs no kprobe's program while its CPU is at a map, and tracer says nothing of answers then: that
    /// is as good, but must stay the exception. See [`Watch::stop`].
    pub fn is_told(&self, events: Vec<Value>, wanted: Value) -> Result<()> {
        let may_miss = has_kprobes() && !wanted["drop"]["action"].is_null();
        let mut told = Vec::new();
        for mut event in events {
            let count = event["count"].as_u64().unwrap_or_default();
            if may_miss {
                self.asked.set(self.asked.get() + count);
            }
            if may_miss && event["drop"]["action"].is_null() {
                self.missed.set(self.missed.get() + count);
                event["symptom"] = wanted["symptom"].clone();
                for field in ["action", "reply"] {
                    if !wanted["drop"][field].is_null() {
                        event["drop"][field] = wanted["drop"][field].clone();
                    }
                }
                // An answer may be evidence of whose rule it was.
                if is_part(&event["drop"]["evidence"], &wanted["drop"]["evidence"]) {
                    event["drop"]["evidence"] = wanted["drop"]["evidence"].clone();
                }
            }
            fold(&mut told, event, count);
        }
        same(&told, &[wanted])
    }

    /// Stops it as Ctrl-C does. It must have nothing more to tell, and end well.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let mut events = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline - Instant::now()) {
                Ok(line) => {
                    if let Some((event, count)) = self.checked(&line)? {
                        fold(&mut events, event, count);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("tracer did not stop on SIGINT"),
            }
        }
        let (asked, missed) = (self.asked.get(), self.missed.get());
        ensure!(
            missed * 4 <= asked,
            "of {asked} answers {missed} may have been missed"
        );
        let status = self.child.wait()?;
        let said: Vec<_> = self.said.iter().collect();
        let said = said.join("\n");
        ensure!(
            events.is_empty(),
            "more than the firewall counted: {events:#?}; it said: {said}"
        );
        // The kernel's losses are the whole machine's; those of this test's packets were missed by `drops`.
        ensure!(
            !said.contains("undecodable") || said.contains("undecodable 0)"),
            "tracer lost drops: {said}"
        );
        ensure!(status.success(), "tracer ended with {status}: {said}");
        Ok(())
    }

    /// Parses a line, checks and takes out what no two runs have in common: time, count, network
    /// namespace, location, ephemeral port.
    ///
    /// `None` for a drop of another namespace: tracer sees the whole machine.
    fn checked(&self, line: &str) -> Result<Option<(Value, u64)>> {
        let mut event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let netns = event["drop"]["netns"].as_u64();
        let netns = netns.with_context(|| format!("no network namespace: {line}"))?;
        if netns != self.netns {
            self.strangers.borrow_mut().push(line.to_owned());
            return Ok(None);
        }
        let object = event.as_object_mut().context("not an object")?;
        let time = object.remove("time").context("no time")?;
        let time = time.as_str().context("time is no string")?;
        ensure!(
            time.len() == "2026-01-01T00:00:00.000000000Z".len(),
            "time {time} has not nine digits of a second"
        );
        let time: Timestamp = time.parse()?;
        // The clocks of kernel and test are read at different moments, and someone may set them.
        let slack = Duration::from_secs(2);
        ensure!(
            time >= self.started.checked_sub(slack)?
                && time <= Timestamp::now().checked_add(slack)?,
            "time {time} is not within the test"
        );
        let count = object.remove("count").and_then(|count| count.as_u64());
        let count = count.filter(|&count| count > 0).context("no count")?;
        let drop = object.get_mut("drop").and_then(Value::as_object_mut);
        let drop = drop.context("no drop")?;
        drop.remove("netns");
        // Of programs, the numbers differ.
        for program in drop
            .get_mut("programs")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let id = program
                .as_object_mut()
                .and_then(|program| program.remove("id"));
            ensure!(
                id.is_some_and(|id| id.is_u64()),
                "a program without a number: {line}"
            );
        }
        let location = drop.remove("location");
        let location = location
            .as_ref()
            .and_then(Value::as_str)
            .context("no location")?;
        let (symbol, offset) = location
            .split_once("+0x")
            .context("location has no offset")?;
        ensure!(
            !symbol.is_empty() && u64::from_str_radix(offset, 16).is_ok(),
            "location {location} is no symbol+offset"
        );
        if let Some(port) = object
            .get_mut("source")
            .and_then(|peer| peer.get_mut("port"))
        {
            // net.ipv4.ip_local_port_range
            let number = port.as_u64().context("port is no number")?;
            ensure!(
                (32768..=60999).contains(&number),
                "{number} is no ephemeral port"
            );
            *port = Value::from("ephemeral");
        }
        Ok(Some((event, count)))
    }
}

/// Whether a list has nothing that another has not.
fn is_part(list: &Value, of: &Value) -> bool {
    match (list.as_array(), of.as_array()) {
        (Some(list), Some(of)) => list.iter().all(|one| of.contains(one)),
        _ => false,
    }
}

fn fold(events: &mut Vec<Value>, event: Value, count: u64) {
    let same = |known: &&mut Value| {
        let mut known = (*known).clone();
        known["count"] = Value::Null;
        let mut event = event.clone();
        event["count"] = Value::Null;
        known == event
    };
    if let Some(known) = events.iter_mut().find(same) {
        let before = known["count"].as_u64().unwrap_or_default();
        known["count"] = Value::from(before + count);
    } else {
        let mut event = event;
        event["count"] = Value::from(count);
        events.push(event);
    }
}

/// What tracer hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Answered,
    Nothing,
}

/// How the kernel answers a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Icmp,
    Reset,
}

/// Whether this kernel lets on that it answers a sender: by the tracepoint `icmp:icmp_send` (6.11), or to a
/// kprobe, where it has those and the function is there by now.
fn hears(answer: Answer, family: Family) -> bool {
    let function = match (answer, family) {
        (Answer::Icmp, Family::V4) if kernel::knows("btf_trace_icmp_send") => return true,
        (Answer::Icmp, Family::V4) => "__icmp_send",
        (Answer::Icmp, Family::V6) => "icmp6_send",
        (Answer::Reset, Family::V4) => "nf_send_reset",
        (Answer::Reset, Family::V6) => "nf_send_reset6",
    };
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let is_there = |line: &str| line.split_ascii_whitespace().nth(2) == Some(function);
    has_kprobes() && symbols.lines().any(is_there)
}

fn has_kprobes() -> bool {
    std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists()
}
