//! A thousand pods come and go on a few addresses, while each of them is cut off from Vault.
//!
//! The pods are objects of the API on another node, and their packets are the lab's: each is sent to a port
//! that only its pod asks for, so that every drop says by itself whose it is.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use lab::plan;
use serde_json::{Value, json};

use crate::agent::PROBES;
use crate::cluster::{Cluster, PATIENCE, until};
use crate::enforcement::Enforcement;

const NAMESPACE: &str = "churn";
const NODE: &str = "node-2";
const PODS: u16 = 1000;
/// Pods at a time.
const WORKERS: u16 = 8;
/// Addresses that the pods use in turn, as a node's address manager gives them away.
const ADDRESSES: u16 = 200;
/// The first pod's port. No policy lets it through, and no probe goes there.
const FIRST_PORT: u16 = 20_000;
/// Packets of a pod before its address is in its status, and after.
const PACKETS: [u32; 2] = [1, 2];

/// Nobody's packet is said to be another's, and each is counted.
pub(crate) fn blames_nobody_wrongly(
    cluster: &Cluster<'_>,
    enforcement: &Enforcement,
) -> Result<()> {
    let before = enforcement.agrees(cluster)?;
    let client = cluster.lab.pod("client").netns();
    for pod in 0..ADDRESSES {
        let address = format!("{}/24", address(pod));
        client.run("ip", &["address", "add", &address, "dev", "eth0"])?;
    }
    let vault = cluster.address("vault", PROBES.pod)?;
    let watch = Watch::of(cluster.spawn_tracer(&["watch", "-o", "json"])?)?;
    until("the watch shows a drop", || {
        send(cluster, address(0), SocketAddr::new(vault, FIRST_PORT - 1))?;
        Ok(watch.told().others > 0)
    })?;

    let send = |from, port| send(cluster, from, SocketAddr::new(vault, port));
    cluster.asynchronously(|client| come_and_go(client, &send))?;
    let after = enforcement.agrees(cluster)?;
    let sent = u64::from(PODS) * u64::from(PACKETS.iter().sum::<u32>());
    ensure!(
        after - before >= sent,
        "{sent} packets were sent, {} dropped",
        after - before
    );

    until("the watch has shown every packet", || {
        Ok(watch.told().packets() == sent)
    })
    .with_context(|| format!("{sent} were sent, shown: {:?}", watch.told()))?;
    let told = watch.told();
    ensure!(
        told.wrong.is_empty(),
        "of {sent} packets {} were said to be others', such as {}",
        told.wrong.len(),
        told.wrong[0]
    );
    // Some cannot be told; that most are is what makes this a test.
    ensure!(
        told.right * 10 >= sent * 9,
        "of {sent} packets {} were attributed, {} to nobody",
        told.right,
        told.nobody
    );
    println!(
        "         of {sent} packets {} attributed, {} to nobody",
        told.right, told.nobody
    );
    Ok(())
}

/// Whose the packets were said to be.
#[derive(Clone, Debug, Default)]
struct Told {
    right: u64,
    nobody: u64,
    wrong: Vec<String>,
    /// Of no pod of ours.
    others: u64,
}

impl Told {
    fn packets(&self) -> u64 {
        self.right + self.nobody + self.wrong.len() as u64
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let drop: Value = serde_json::from_str(line)?;
        let count = drop["count"].as_u64().context("a drop without a count")?;
        let port = drop["destination"]["port"].as_u64().unwrap_or_default();
        let pod = u16::try_from(port)?.checked_sub(FIRST_PORT);
        let pod = pod.filter(|pod| *pod < PODS);
        match (pod, drop["source"]["pod"].as_str()) {
            (None, _) => self.others += count,
            (Some(_), None) => self.nobody += count,
            (Some(pod), Some(said)) if said == name(pod) => self.right += count,
            (Some(_), Some(_)) => (0..count).for_each(|_| self.wrong.push(line.to_owned())),
        }
        Ok(())
    }
}

/// A `tracer watch` that runs until this is dropped.
struct Watch {
    child: Child,
    told: Arc<Mutex<Told>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    fn of(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take().context("no pipe")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let reader = thread::spawn({
            let told = Arc::clone(&told);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) = told.add(&line) {
                        told.wrong.push(format!("{error:#}: {line}"));
                    }
                }
            }
        });
        Ok(Self {
            child,
            told,
            reader: Some(reader),
        })
    }

    fn told(&self) -> Told {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// 10.42.2.20 and on: of the other node's range.
fn address(pod: u16) -> Ipv4Addr {
    let [a, b, c, _] = plan::OTHER_POD_GATEWAY.v4.octets();
    let last = 20 + pod % ADDRESSES;
    Ipv4Addr::new(a, b, c, u8::try_from(last).unwrap_or(u8::MAX))
}

fn name(pod: u16) -> String {
    format!("churn-{pod}")
}

fn send(cluster: &Cluster<'_>, from: Ipv4Addr, to: SocketAddr) -> Result<()> {
    let client = cluster.lab.pod("client").netns();
    let socket = client.enter(|| UdpSocket::bind((from, 0)))??;
    socket.send_to(b"x", to)?;
    Ok(())
}

async fn come_and_go(
    client: Client,
    send: &(impl Fn(Ipv4Addr, u16) -> Result<()> + Sync),
) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    let create = PostParams::default();
    Api::all(client.clone()).create(&create, &namespace).await?;
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": NODE},
        "spec": {"podCIDR": "10.42.2.0/24", "podCIDRs": ["10.42.2.0/24"]},
    }))?;
    Api::all(client.clone()).create(&create, &node).await?;
    let pods = Api::<Pod>::namespaced(client, NAMESPACE);
    let workers = (0..WORKERS).map(|worker| live_and_die(&pods, worker, send));
    futures_util::future::try_join_all(workers).await?;
    Ok(())
}

async fn live_and_die(
    pods: &Api<Pod>,
    worker: u16,
    send: &(impl Fn(Ipv4Addr, u16) -> Result<()> + Sync),
) -> Result<()> {
    for pod in (worker..PODS).step_by(WORKERS.into()) {
        let from = address(pod);
        create(pods, &object(pod)?).await?;
        // A pod sends before the kubelet has told its address.
        for _ in 0..PACKETS[0] {
            send(from, FIRST_PORT + pod)?;
        }
        let status = json!({"status": {
            "phase": "Running",
            "startTime": Timestamp::from_second(Timestamp::now().as_second())?,
            "podIP": from,
            "podIPs": [{"ip": from}],
        }});
        let patch = Patch::Merge(&status);
        pods.patch_status(&name(pod), &PatchParams::default(), &patch)
            .await?;
        for _ in 0..PACKETS[1] {
            send(from, FIRST_PORT + pod)?;
        }
        let now = DeleteParams::default().grace_period(0);
        pods.delete(&name(pod), &now).await?;
    }
    Ok(())
}

fn object(pod: u16) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name(pod)},
        "spec": {"nodeName": NODE, "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "c"}]},
    }))?)
}

/// Creates a pod, as soon as its namespace takes any.
pub(crate) async fn create(pods: &Api<Pod>, object: &Pod) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pods.create(&PostParams::default(), object).await {
            Ok(_) => return Ok(()),
            // A namespace takes pods once it has its service account.
            Err(kube::Error::Api(status)) if status.code == 403 && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
