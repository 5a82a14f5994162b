//! A thousand pods come and go on a few addresses, while each of them is cut off from Vault, and from the
//! world outside.
//!
//! The pods are objects of the API on another node, and their packets are the lab's: each is sent to a port
//! that only its pod asks for or is asked at, so that every drop says by itself whose it is.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
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
/// The first pod's port where it is asked itself, by a host outside.
const FIRST_OWN_PORT: u16 = 30_000;
/// The policies that isolate them: who has an address next is isolated by the other one.
const POLICIES: [&str; 2] = ["churn-even", "churn-odd"];
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
    refuse_the_world(cluster)?;
    let vault = cluster.address("vault", PROBES.pod)?;
    let watch = Watch::of(cluster.spawn_tracer(&["watch", "-o", "json"])?)?;
    until("the watch shows a drop", || {
        send(cluster, address(0), SocketAddr::new(vault, FIRST_PORT - 1))?;
        Ok(watch.told().others > 0)
    })?;

    let remote = cluster
        .lab
        .remote()
        .enter(|| UdpSocket::bind((plan::REMOTE.v4, 0)))??;
    let send = |own: Ipv4Addr, pod: u16| {
        send(cluster, own, SocketAddr::new(vault, FIRST_PORT + pod))?;
        remote.send_to(b"x", (own, FIRST_OWN_PORT + pod))?;
        Ok(())
    };
    cluster.asynchronously(|client| come_and_go(client, &send))?;
    let after = enforcement.agrees(cluster)?;
    let sent = u64::from(PODS) * u64::from(PACKETS.iter().sum::<u32>());
    ensure!(
        after - before >= sent,
        "{sent} packets were sent, {} dropped",
        after - before
    );

    until("the watch has shown every packet", || {
        let told = watch.told();
        Ok([&told.from, &told.to].map(Whose::packets) == [sent, sent])
    })
    .with_context(|| format!("{sent} were sent each way, shown: {:?}", watch.told()))?;
    let told = watch.told();
    for (whose, way) in [(&told.from, "from"), (&told.to, "to")] {
        whose.check(sent, way)?;
    }
    // Metrics blame the isolated end's policy as the lines do.
    for (policy, packets) in POLICIES.iter().zip(told.by_policy) {
        ensure!(packets > 0, "no packet met {policy}");
        let labels = [
            format!("policy_namespace=\"{NAMESPACE}\""),
            format!("policy=\"{policy}\""),
        ];
        let counted = cluster.metric("tracer_policy_drops_total", &labels)?;
        ensure!(
            counted == packets,
            "{policy}: {packets} in the lines, {counted} in the metric"
        );
    }
    let delete = ["delete", "table", "ip", TABLE];
    cluster.lab.other_node().run("nft", &delete).map(drop)
}

/// On the other node, packets to these pods are dropped.
fn refuse_the_world(cluster: &Cluster<'_>) -> Result<()> {
    let last = FIRST_OWN_PORT + PODS - 1;
    let table = format!(
        "table ip {TABLE} {{\n\
         chain drops {{\n\
         type filter hook forward priority filter; policy accept;\n\
         udp dport {FIRST_OWN_PORT}-{last} counter drop\n\
         }}\n\
         }}\n"
    );
    let node = cluster.lab.other_node();
    node.run_with_input("nft", &["-f", "-"], &table).map(drop)
}

const TABLE: &str = "lab-churn";

/// What the watch has shown.
#[derive(Clone, Debug, Default)]
struct Told {
    /// From our pods.
    from: Whose,
    /// To our pods.
    to: Whose,
    /// Packets to our pods, by the policy that is said to isolate them.
    by_policy: [u64; POLICIES.len()],
    /// Of no pod of ours.
    others: u64,
}

/// Whose the packets of one way were said to be.
#[derive(Clone, Debug, Default)]
struct Whose {
    right: u64,
    nobody: u64,
    wrong: Vec<String>,
}

impl Whose {
    fn packets(&self) -> u64 {
        self.right + self.nobody + self.wrong.len() as u64
    }

    fn add(&mut self, line: &str, count: u64, pod: u16, said: Option<&str>) {
        match said {
            None => self.nobody += count,
            Some(said) if said == name(pod) => self.right += count,
            Some(_) => self.add_wrong(line, count),
        }
    }

    fn add_wrong(&mut self, line: &str, count: u64) {
        (0..count).for_each(|_| self.wrong.push(line.to_owned()));
    }

    fn check(&self, sent: u64, way: &str) -> Result<()> {
        ensure!(
            self.wrong.is_empty(),
            "of {sent} packets {way} our pods {} were said to be others', such as {}",
            self.wrong.len(),
            self.wrong[0]
        );
        println!(
            "         of {sent} packets {way} our pods {} attributed, {} to nobody",
            self.right, self.nobody
        );
        // Some cannot be told; that most are is what makes this a test.
        ensure!(self.right * 10 >= sent * 9, "too many are nobody's");
        Ok(())
    }
}

impl Told {
    fn add(&mut self, line: &str) -> Result<()> {
        let drop: Value = serde_json::from_str(line)?;
        let count = drop["count"].as_u64().context("a drop without a count")?;
        let port = drop["destination"]["port"].as_u64().unwrap_or_default();
        let port = u16::try_from(port)?;
        let pod_at = |first| port.checked_sub(first).filter(|pod| *pod < PODS);
        if let Some(pod) = pod_at(FIRST_PORT) {
            let said = drop["source"]["pod"].as_str();
            self.from.add(line, count, pod, said);
        } else if let Some(pod) = pod_at(FIRST_OWN_PORT) {
            self.add_to(&drop, line, count, pod);
        } else {
            self.others += count;
        }
        Ok(())
    }

    /// Who is said to be isolated is said to be so by the own policy, and nobody by none.
    fn add_to(&mut self, drop: &Value, line: &str, count: u64, pod: u16) {
        let said = drop["destination"]["pod"].as_str();
        let isolating = drop["policy"]["isolating"].as_array();
        let isolating: Vec<_> = isolating
            .into_iter()
            .flatten()
            .filter_map(|policy| policy["name"].as_str())
            .collect();
        let wanted: &[&str] = match said {
            Some(_) => &[policy(pod)],
            None => &[],
        };
        if isolating == wanted {
            self.to.add(line, count, pod, said);
        } else {
            self.to.add_wrong(line, count);
        }
        if said.is_some() {
            self.by_policy[turn(pod)] += count;
        }
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
                        told.to.wrong.push(format!("{error:#}: {line}"));
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

/// Which of the policies isolates it.
fn turn(pod: u16) -> usize {
    usize::from(pod / ADDRESSES) % POLICIES.len()
}

fn policy(pod: u16) -> &'static str {
    POLICIES[turn(pod)]
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
    let policies = Api::<NetworkPolicy>::namespaced(client.clone(), NAMESPACE);
    for name in POLICIES {
        let object = json!({
            "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"policy": name}}, "policyTypes": ["Ingress"]},
        });
        policies
            .create(&create, &serde_json::from_value(object)?)
            .await?;
    }
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
            send(from, pod)?;
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
            send(from, pod)?;
        }
        let now = DeleteParams::default().grace_period(0);
        pods.delete(&name(pod), &now).await?;
    }
    Ok(())
}

fn object(pod: u16) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name(pod), "labels": {"policy": policy(pod)}},
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
