//! Ten thousand pods and two thousand policies in a real API server, and how much of the agent they take.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::traffic::udp_send;
use serde_json::json;
use tracer_policy::model::Protocol;

use crate::cluster::{Cluster, until};
use crate::outage::restart_agent;

const NAMESPACES: usize = 20;
const PODS: usize = 10_000;
const POLICIES: usize = 2_000;
/// The address of one more pod: the lab leads there, and nobody had it before.
const LAST: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 250);
const PORT: u16 = 9;
/// Calls at a time.
const CALLS: usize = 32;
/// What the agent may take, in MiB.
const MOST: u64 = 64;
/// How often its memory is looked at, and how far apart.
const LOOKS: usize = 5;
const BETWEEN: Duration = Duration::from_millis(300);

/// The agent lists all that anew, and is small again afterwards.
pub(crate) fn stays_small(cluster: &Cluster<'_>) -> Result<()> {
    let before = Memory::of_agent()?;
    cluster.asynchronously(fill)?;
    knows_the_last(cluster)?;
    let followed = Memory::of_agent()?;
    restart_agent(cluster)?;
    knows_the_last(cluster)?;
    let started = Memory::of_agent()?;
    println!(
        "         resident before, after, and in an agent that starts with {PODS} pods and {POLICIES} policies: \
         {before}, {followed}, {started} MiB"
    );
    ensure!(
        followed.resident <= MOST && started.resident <= MOST,
        "more than {MOST} MiB are resident"
    );
    Ok(())
}

/// Waits until the agent calls the pod by name that was brought when all others were there: they come in the
/// order in which they change.
fn knows_the_last(cluster: &Cluster<'_>) -> Result<()> {
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Forward,
        protocol: Protocol::Udp,
        source: None,
        destination: LAST.into(),
        port: Some(PORT),
        verdict: Verdict::Drop,
    };
    let rule = rule.install(cluster.lab.other_node())?;
    let name = [format!("destination_workload=\"{}\"", name(PODS))];
    let counted = || cluster.metric("tracer_drops_total", &name);
    let known = counted()?;
    until("the agent knows the last pod", || {
        udp_send(cluster.lab.remote(), (LAST, PORT).into(), 1, b"x")?;
        Ok(counted()? > known)
    })?;
    rule.remove()
}

/// Memory of the agent, in MiB.
struct Memory {
    resident: u64,
    peak: u64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (at most {})", self.resident, self.peak)
    }
}

impl Memory {
    /// The median of several looks: what it takes for a moment is no measure.
    fn of_agent() -> Result<Self> {
        let mut looks = Vec::with_capacity(LOOKS);
        for _ in 0..LOOKS {
            looks.push(Self::look()?);
            thread::sleep(BETWEEN);
        }
        looks.sort_by_key(|memory| memory.resident);
        Ok(looks.swap_remove(LOOKS / 2))
    }

    /// Of the process whose command is the image's; it is in a namespace below ours.
    fn look() -> Result<Self> {
        let is_agent = |status: &str, command: &[u8]| {
            let mut words = command.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            let depth = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))
                .map_or(0, |pids| pids.split_ascii_whitespace().count());
            program.ends_with(b"tracer") && words.next() == Some(b"agent") && depth > 1
        };
        for entry in fs::read_dir("/proc")? {
            let folder = entry?.path();
            // Others come and go.
            let Ok(status) = fs::read_to_string(folder.join("status")) else {
                continue;
            };
            let command = fs::read(folder.join("cmdline")).unwrap_or_default();
            if !is_agent(&status, &command) {
                continue;
            }
            let mib = |key: &str| -> Result<u64> {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
                Ok(number
                    .context("no such line in its status")?
                    .parse::<u64>()?
                    / 1024)
            };
            return Ok(Self {
                resident: mib("VmRSS:")?,
                peak: mib("VmHWM:")?,
            });
        }
        anyhow::bail!("there is no agent's process")
    }
}

async fn fill(client: Client) -> Result<()> {
    let create = PostParams::default();
    for index in 0..NAMESPACES {
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace(index),
            "labels": {"team": format!("team-{}", index % 7)}}}))?;
        Api::all(client.clone()).create(&create, &object).await?;
        let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &namespace(index));
        for of in 0..POLICIES / NAMESPACES {
            policies.create(&create, &policy(of)?).await?;
        }
    }
    stream::iter(0..PODS)
        .map(|index| bring(client.clone(), index))
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await?;
    bring(client, PODS).await
}

fn name(index: usize) -> String {
    format!("web-{index}")
}

fn namespace(index: usize) -> String {
    format!("scale-{index}")
}

/// A policy of three rules, as people write them.
fn policy(of: usize) -> Result<NetworkPolicy> {
    let app = |n: usize| json!({"matchLabels": {"app.kubernetes.io/name": format!("app-{n}")}});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("policy-{of}")},
        "spec": {"podSelector": app(of), "policyTypes": ["Ingress"], "ingress": [
            {"from": [{"podSelector": app(of + 1)}], "ports": [{"port": "http"}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": format!("team-{}", of % 7)}}}]},
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 443}]},
        ]},
    }))?)
}

async fn bring(client: Client, index: usize) -> Result<()> {
    let name = name(index);
    let app = format!("app-{}", index % 100);
    let object: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": app,
            "app.kubernetes.io/instance": "release", "pod-template-hash": format!("{:08x}", index / 10)}},
        "spec": {"nodeName": "node-2", "automountServiceAccountToken": false, "containers": [{
            "name": "web", "image": "web", "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "http"}},
            "env": [{"name": "A", "value": "what nobody needs to know"}]}]},
    }))?;
    let pods = Api::<Pod>::namespaced(client, &namespace(index % NAMESPACES));
    crate::churn::create(&pods, &object).await?;
    let ip = match index {
        PODS => LAST.to_string(),
        index => format!("10.50.{}.{}", index / 250, index % 250 + 1),
    };
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}
