//! The agent at work: what it counts, serves, streams and remembers.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
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

use crate::program::tracer;
use crate::watch;

const PATIENCE: Duration = Duration::from_mins(1);
const PACKETS: u64 = 7;
const PORT: u16 = 9999;

pub(crate) struct Agent<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) child: Child,
    log: Receiver<Value>,
    /// What it logged until it served.
    pub(crate) said: Vec<Value>,
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
        let program = [tracer().into_os_string()];
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
            said,
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

    /// Drops that were lost in this program. What the kernel says it lost is the whole machine's; of a test's
    /// own packets it would be missing in their count.
    pub(crate) fn undecodable(&self) -> Result<u64> {
        self.sum("tracer_events_lost_total", &[r#"stage="decode""#])
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
        let mut command = Command::new(tracer());
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

/// `tracer watch` that follows an agent.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// Starts it; what it then reads is what happens after it has connected.
    fn start(agent: &Agent<'_>, args: &[&str]) -> Result<Self> {
        let mut child = agent
            .watch(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        BufReader::new(child.stderr.take().context("no stderr")?).read_line(&mut said)?;
        ensure!(said.contains("from its agent"), "{said}");
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { child, lines })
    }

    fn next(&mut self) -> Result<Value> {
        let line = self.lines.next().context("it ended")??;
        Ok(serde_json::from_str(&line)?)
    }

    /// Reads to the end, to which it comes by itself.
    fn rest(mut self) -> Result<Vec<Value>> {
        let drops: Vec<_> = std::iter::from_fn(|| self.lines.next())
            .map(|line| Ok(serde_json::from_str(&line?)?))
            .collect::<Result<_>>()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(drops)
    }

    /// Ends it as Ctrl-C does; there must be nothing more to read.
    fn stop(self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let rest = self.rest()?;
        ensure!(rest.is_empty(), "{rest:#?}");
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
    let first = Follower::start(&agent, &["--count", "1"]).unwrap();
    let mut follower = Follower::start(&agent, &[]).unwrap();

    let to = SocketAddr::new(vault, PORT);
    traffic::udp_send(lab.remote(), to, PACKETS, b"x").unwrap();
    let labels = [
        r#"destination_workload="vault""#,
        r#"class="external""#,
        r#"direction="ingress""#,
    ];
    let counted = agent.until("tracer_drops_total", &labels, PACKETS).unwrap();
    assert_eq!((counted, rule.packets().unwrap()), (PACKETS, PACKETS));
    let of_policy = [r#"policy="vault-policy""#];
    let counted = agent
        .until("tracer_policy_drops_total", &of_policy, PACKETS)
        .unwrap();
    assert_eq!(counted, PACKETS);
    assert_eq!(agent.undecodable().unwrap(), 0);

    // The first packet at once, the others counted: by one look at the table or by several.
    let mut followed = Vec::new();
    let count = |drops: &[Value]| drops.iter().filter_map(|drop| drop["count"].as_u64()).sum();
    while count(&followed) < PACKETS {
        followed.push(follower.next().unwrap());
    }
    follower.stop().unwrap();
    assert_eq!(
        (followed[0]["count"].as_u64(), count(&followed)),
        (Some(1), PACKETS)
    );
    assert!(
        followed
            .iter()
            .all(|drop| drop["destination"]["pod"] == "vault-0"
                && drop["source"]["ip"] == plan::REMOTE.v4.to_string())
    );
    assert_eq!(first.rest().unwrap(), followed[..1]);

    let past = agent
        .watch(&[
            "--last",
            &followed.len().to_string(),
            "--ip",
            &vault.to_string(),
        ])
        .output()
        .unwrap();
    assert!(
        past.status.success(),
        "{}",
        String::from_utf8_lossy(&past.stderr)
    );
    let past: Vec<Value> = serde_json::Deserializer::from_slice(&past.stdout)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(past, followed);
    agent.stop().unwrap();
}
