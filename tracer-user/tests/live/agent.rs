//! The agent at work: what it counts, serves, streams and remembers.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::{BROKEN_POLICY, Family, Lab, Wiring, plan, traffic};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tracer_policy::model::Protocol;

use crate::watch;

const PATIENCE: Duration = Duration::from_mins(1);
const PACKETS: u64 = 7;
const PORT: u16 = 9999;

pub(crate) struct Agent<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) child: Child,
    log: Receiver<Value>,
    address: SocketAddr,
    socket: PathBuf,
    /// Its cluster and socket; kept from run to run where a test does.
    _folder: Arc<TempDir>,
}

impl<'a> Agent<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        Self::start_with(lab, &[])
    }

    pub(crate) fn start_with(lab: &'a Lab, more: &[&str]) -> Result<Self> {
        let folder = Arc::new(tempfile::tempdir()?);
        Self::start_in(lab, folder, "none", more)
    }

    /// Starts one that keeps what it needs in `folder`, and what stays in the kernel in `pin`.
    pub(crate) fn start_in(
        lab: &'a Lab,
        folder: Arc<TempDir>,
        pin: &str,
        more: &[&str],
    ) -> Result<Self> {
        let program = [OsString::from(env!("CARGO_BIN_EXE_tracer"))];
        Self::start_by(lab, folder, &program, pin, more)
    }

    /// The same by another command: a program and its first arguments.
    pub(crate) fn start_by(
        lab: &'a Lab,
        folder: Arc<TempDir>,
        command: &[OsString],
        pin: &str,
        more: &[&str],
    ) -> Result<Self> {
        let (program, first) = command.split_first().context("no program")?;
        let (cluster, socket) = (
            folder.path().join("cluster.yaml"),
            folder.path().join("tracer.sock"),
        );
        std::fs::write(&cluster, format!("{}---\n{BROKEN_POLICY}", lab.manifests()))?;
        let mut child = lab.spawn_on_node(program, |tracer| {
            tracer
                .args(first)
                .args([
                    "agent",
                    "--metrics-addr",
                    "127.0.0.1:0",
                    "--node",
                    "node-1",
                    "--pin",
                    pin,
                    "--cluster",
                ])
                .arg(&cluster)
                .arg("--socket")
                .arg(&socket)
                .args(more)
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
        })?;
        let (sender, log) = channel();
        let stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        thread::spawn(move || {
            for line in stderr.lines().map_while(std::io::Result::ok) {
                // Not on a terminal, so every line is JSON.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut said = Vec::new();
        let address = loop {
            let Ok(line) = log.recv_timeout(PATIENCE) else {
                bail!("the agent does not serve: {said:?}");
            };
            said.push(line.clone());
            if let Some(address) = line["address"].as_str() {
                break address.parse()?;
            }
        };
        Ok(Self {
            lab,
            child,
            log,
            address,
            socket,
            _folder: folder,
        })
    }

    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut answer = String::new();
        let address = self.address;
        let connection = self.lab.node().enter(|| TcpStream::connect(address))?;
        let mut connection = connection?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
        )?;
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// The sum of a metric's series that have all of these labels.
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> Result<u64> {
        let text = self.get("/metrics")?;
        text.lines()
            .filter(|line| line.starts_with(&format!("{metric}{{")))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| {
                let value = line.rsplit_once(' ').context("a metric without a value")?.1;
                Ok(value.parse::<u64>()?)
            })
            .sum()
    }

    /// Waits until a metric has reached `wanted`; returns what it is then.
    pub(crate) fn until(&self, metric: &str, labels: &[&str], wanted: u64) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sum = self.sum(metric, labels)?;
            if sum >= wanted || Instant::now() > deadline {
                return Ok(sum);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn watch(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        command
            .args(["watch", "-o", "json", "--socket"])
            .arg(&self.socket)
            .args(args);
        command
            .env_remove("TRACER_CLUSTER")
            .env_remove("TRACER_REASONS")
            .stdin(Stdio::null());
        command
    }

    /// Kills it, as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the agent ended with {status}");
        ensure!(!self.socket.exists(), "the agent left its socket behind");
        let stopped = self.log.iter().any(|line| line["message"] == "stopped");
        ensure!(stopped, "the agent did not say that it stopped");
        Ok(())
    }
}

#[test]
fn the_agent_counts_exactly_serves_streams_and_remembers() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let agent = Agent::start(&lab).unwrap();
    assert_eq!(agent.get("/healthz").unwrap(), "ok\n");
    assert_eq!(agent.get("/readyz").unwrap(), "ok\n");
    assert!(
        agent
            .get("/metrics")
            .unwrap()
            .contains("tracer_cluster_synced 1")
    );

    let follower = agent
        .watch(&["--count", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let vault = lab.pod("vault-0").addresses().of(Family::V4);
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Forward,
        protocol: Protocol::Udp,
        source: None,
        destination: vault,
        port: Some(PORT),
        verdict: Verdict::Drop,
    };
    let rule = rule.install(lab.node()).unwrap();
    // What the follower reads is what happens after it has connected: it says so.
    let mut follower = follower;
    let mut said = BufReader::new(follower.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("from its agent"), "{line}");

    let to = SocketAddr::new(vault, PORT);
    traffic::udp_send(lab.remote(), to, PACKETS, b"x").unwrap();
    let labels = [
        r#"destination_workload="vault""#,
        r#"class="external""#,
        r#"direction="ingress""#,
    ];
    let counted = agent.until("tracer_drops_total", &labels, PACKETS).unwrap();
    assert_eq!((counted, rule.packets().unwrap()), (PACKETS, PACKETS));
    assert_eq!(
        agent
            .sum("tracer_policy_drops_total", &[r#"policy="vault-policy""#])
            .unwrap(),
        PACKETS
    );
    for stage in ["kernel", "decode"] {
        let stage = format!("stage=\"{stage}\"");
        assert_eq!(
            agent.sum("tracer_events_lost_total", &[&stage]).unwrap(),
            0,
            "{stage}"
        );
    }

    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.success());
    let drops = |text: &[u8]| -> Vec<Value> {
        std::str::from_utf8(text)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let followed = drops(&followed.stdout);
    // The first packet at once, the others counted.
    let counts: Vec<_> = followed.iter().map(|drop| drop["count"].as_u64()).collect();
    assert_eq!(counts, [Some(1), Some(PACKETS - 1)]);
    assert!(
        followed
            .iter()
            .all(|drop| drop["destination"]["pod"] == "vault-0"
                && drop["source"]["ip"] == plan::REMOTE.v4.to_string())
    );

    let past = agent
        .watch(&["--last", "2", "--ip", &vault.to_string()])
        .output()
        .unwrap();
    assert!(
        past.status.success(),
        "{}",
        String::from_utf8_lossy(&past.stderr)
    );
    assert_eq!(drops(&past.stdout), followed[..]);
    agent.stop().unwrap();
}
