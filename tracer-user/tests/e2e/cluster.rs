//! A cluster of one node with the agent's image, and what the tests ask it.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::kube::{ControlPlane, Node};
use lab::{Lab, plan};

/// Where the API server listens on the master: at the usual port the lab's stand-in does.
pub(crate) const API_PORT: u16 = 16443;

const NODE: &str = "node-1";
const METRICS_PORT: u16 = 9470;
const PATIENCE: Duration = Duration::from_mins(2);
const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Cluster<'a> {
    node: Node<'a>,
    pub(crate) plane: ControlPlane<'a>,
    pub(crate) lab: &'a Lab,
}

/// Waits for what announces itself in no other way.
pub(crate) fn until(
    patience: Duration,
    what: &str,
    mut reached: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !reached().with_context(|| format!("while waiting until {what}"))? {
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", patience.as_secs());
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

impl<'a> Cluster<'a> {
    pub(crate) fn start(lab: &'a Lab) -> Result<Self> {
        let image = std::env::var_os("TRACER_IMAGE")
            .map(PathBuf::from)
            .context("TRACER_IMAGE is not set; run `cargo xtask test --only e2e`")?;
        let plane = ControlPlane::start(lab.master(), plan::MASTER.v4, API_PORT)?;
        // What kube-proxy does; ahead of the lab's own translation to its stand-in.
        let mut service = String::new();
        for (chain, hook) in [("local", "output"), ("pods", "prerouting")] {
            // Writing to a string cannot fail.
            let _ = write!(
                service,
                "add table ip kubernetes\n\
                 add chain ip kubernetes {chain} {{ type nat hook {hook} priority -110; }}\n\
                 add rule ip kubernetes {chain} ip daddr {} tcp dport 443 dnat to {}:{API_PORT}\n",
                plan::KUBERNETES_SERVICE.v4,
                plan::MASTER.v4,
            );
        }
        lab.node().run_with_input("nft", &["-f", "-"], &service)?;
        let node = Node::start(lab.node(), &plane, NODE, plan::NODE.v4, &[image])?;
        Ok(Self { node, plane, lab })
    }

    /// Applies manifests and sends their pods to the node.
    pub(crate) fn apply(&self, manifests: &str) -> Result<()> {
        self.plane
            .kubectl_with_input(&["apply", "-f", "-"], manifests)?;
        self.plane.schedule(NODE)?;
        Ok(())
    }

    /// Returns once the pod is gone.
    pub(crate) fn delete(&self, namespace: &str, pod: &str) -> Result<()> {
        self.plane
            .kubectl(&["-n", namespace, "delete", "pod", pod, "--timeout=60s"])
            .map(drop)
    }

    pub(crate) fn wait_ready(&self, namespace: &str, pod: &str, wanted: &str) -> Result<()> {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let what = format!("{namespace}/{pod} has Ready={wanted}");
        until(PATIENCE, &what, || {
            let status = self
                .plane
                .kubectl(&["-n", namespace, "get", "pod", pod, "-o", ready])?;
            Ok(status == wanted)
        })
        .with_context(|| {
            let describe = ["-n", namespace, "describe", "pod", pod];
            let described = self.plane.kubectl(&describe).unwrap_or_default();
            let logs = ["-n", namespace, "logs", pod, "--tail=20"];
            let logged = self.plane.kubectl(&logs).unwrap_or_default();
            format!("{described}\n{logged}\n{}", self.node.last_words())
        })
    }

    pub(crate) fn address(&self, namespace: &str, pod: &str) -> Result<IpAddr> {
        let address = [
            "-n",
            namespace,
            "get",
            "pod",
            pod,
            "-o",
            "jsonpath={.status.podIP}",
        ];
        Ok(self.plane.kubectl(&address)?.parse()?)
    }

    /// Waits until the `DaemonSet` has its pod and that is ready.
    pub(crate) fn agent_is_ready(&self) -> Result<()> {
        until(PATIENCE, "the DaemonSet has a pod", || {
            self.plane.schedule(NODE)?;
            Ok(!self.agent_name()?.is_empty())
        })?;
        self.wait_ready("tracer", &self.agent_name()?, "True")?;
        // It serves before it has read the cluster.
        until(PATIENCE, "the agent has read the cluster", || {
            Ok(self.get("/metrics")?.contains("\ntracer_cluster_synced 1"))
        })
    }

    /// The agent's pod that is on the node.
    pub(crate) fn agent_name(&self) -> Result<String> {
        let selector = "app.kubernetes.io/name=tracer";
        let names = r#"jsonpath={.items[?(@.spec.nodeName=="node-1")].metadata.name}"#;
        self.plane
            .kubectl(&["-n", "tracer", "get", "pods", "-l", selector, "-o", names])
    }

    pub(crate) fn agent_restarts(&self) -> Result<u32> {
        let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
        let name = self.agent_name()?;
        Ok(self
            .plane
            .kubectl(&["-n", "tracer", "get", "pod", &name, "-o", restarts])?
            .parse()?)
    }

    pub(crate) fn agent_may(&self, verb: &str, resource: &str) -> Result<bool> {
        let account = "--as=system:serviceaccount:tracer:tracer";
        // It exits with 1 where the answer is no.
        let asked = ["auth", "can-i", verb, resource, "-A", account];
        match self.plane.kubectl(&asked) {
            Ok(answer) => Ok(answer.trim() == "yes"),
            Err(error) if format!("{error:#}").contains("failed (exit status: 1): ") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs the `tracer` under test on the node, as its administrator would.
    pub(crate) fn tracer_on_node(&self, arguments: &[&str]) -> Result<String> {
        let tracer = Path::new(env!("CARGO_BIN_EXE_tracer"));
        let child = self.node.spawn(tracer, |tracer| {
            tracer
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        })?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "tracer {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The sum of a metric's series that have all of these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Result<u64> {
        self.get("/metrics")?
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| {
                let value = line.rsplit_once(' ').context("a metric without a value")?.1;
                Ok(value.parse::<u64>()?)
            })
            .sum()
    }

    fn get(&self, path: &str) -> Result<String> {
        let address = (plan::NODE.v4, METRICS_PORT);
        let mut connection = self.lab.node().enter(|| TcpStream::connect(address))??;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }
}
