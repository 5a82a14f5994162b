//! The agent as its pod, and what it answers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use lab::plan;

use crate::cluster::{Cluster, NODE, PATIENCE, until};

const PORT: u16 = 9470;
const DROPS: &str = "tracer_drops_total";
const INVISIBLE: &str = "tracer_invisible_drops_total";

/// Drops of a class of traffic that nobody thinks of, of a pod of namespace `vault`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invisible {
    pub(crate) class: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) alert: &'static str,
}

/// The kubelet's probes of vault-0.
pub(crate) const PROBES: Invisible = Invisible {
    class: "kubelet-probe",
    pod: "vault-0",
    alert: "KubeletProbeDropped",
};

/// What vault-1 sends to the API server.
pub(crate) const CALLS: Invisible = Invisible {
    class: "apiserver-egress",
    pod: "vault-1",
    alert: "ApiServerEgressDropped",
};

impl Cluster<'_> {
    /// Waits until the `DaemonSet` has its pod, that is ready and has read the cluster.
    pub(crate) fn wait_agent(&self) -> Result<()> {
        until("the DaemonSet has a pod", || {
            self.plane.schedule(NODE)?;
            Ok(!self.agent()?.is_empty())
        })?;
        self.wait_ready("tracer", &self.agent()?, "True")?;
        // It serves before it has read the cluster.
        self.wait_synced(true)
    }

    pub(crate) fn wait_synced(&self, synced: bool) -> Result<()> {
        let wanted = format!("\ntracer_cluster_synced {}\n", u8::from(synced));
        until(
            &format!("the agent says{}", wanted.replace('\n', " ")),
            || Ok(self.metrics()?.contains(&wanted)),
        )
    }

    /// The name of the agent's pod on the node.
    pub(crate) fn agent(&self) -> Result<String> {
        let selector = "app.kubernetes.io/name=tracer";
        let names = r#"jsonpath={.items[?(@.spec.nodeName=="node-1")].metadata.name}"#;
        self.plane
            .kubectl(&["-n", "tracer", "get", "pods", "-l", selector, "-o", names])
    }

    pub(crate) fn agent_restarts(&self) -> Result<u32> {
        let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
        Ok(self.get("tracer", &self.agent()?, restarts)?.parse()?)
    }

    /// Packets from or to pods of namespace `vault` that the agent counted; it counts the whole machine's.
    pub(crate) fn counted(&self) -> Result<u64> {
        self.sum(DROPS, |series| {
            ["source", "destination"]
                .iter()
                .any(|end| series.contains(&format!("{end}_namespace=\"vault\"")))
        })
    }

    /// Whatever the agent counted, or lost, by its own words.
    pub(crate) fn all_counted(&self) -> Result<String> {
        let page = self.metrics()?;
        let told = [DROPS, "tracer_events_lost_total", "tracer_flow_table_"];
        let is_told = |line: &&str| told.iter().any(|name| line.starts_with(name));
        Ok(page.lines().filter(is_told).collect::<Vec<_>>().join("\n"))
    }

    /// Those of this kind.
    pub(crate) fn counted_invisible(&self, kind: Invisible) -> Result<u64> {
        let labels = [
            format!("class=\"{}\"", kind.class),
            "namespace=\"vault\"".to_owned(),
            format!("workload=\"{}\"", kind.pod),
        ];
        self.metric(INVISIBLE, &labels)
    }

    /// The sum of a metric's series that have all of these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[String]) -> Result<u64> {
        self.sum(name, |series| {
            labels.iter().all(|label| series.contains(label))
        })
    }

    fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Result<u64> {
        self.metrics()?
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| wanted(line))
            .map(|line| {
                let value = line.rsplit_once(' ').context("a metric without a value")?.1;
                Ok(value.parse::<u64>()?)
            })
            .sum()
    }

    /// The text of /metrics.
    pub(crate) fn metrics(&self) -> Result<String> {
        self.ask_agent("/metrics")
    }

    /// What the agent answers at a path.
    pub(crate) fn ask_agent(&self, path: &str) -> Result<String> {
        let address = (plan::NODE.v4, PORT);
        let mut connection = self.lab.node().enter(|| TcpStream::connect(address))??;
        connection.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }
}
