//! The lab itself: what a test or the demo holds in its hands.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lock::Lock;
use crate::manifests;
use crate::netns::Netns;
use crate::network::Network;
use crate::plan::{Addresses, Family, MASTER, NODE, PodPlan, REMOTE, VAULT_PORT, Wiring};
use crate::servers::{LogLine, Servers};
use crate::traffic::{self, HttpsClient};

/// How long the first packet on a new cable may take.
const READY: Duration = Duration::from_secs(30);

/// A live network: master, two nodes, pods, a remote host, their servers and Services. All of it is
/// gone when this value is dropped, or with the process.
#[derive(Debug)]
pub struct Lab {
    // Order of drop: servers before the network they serve in, the lock last.
    servers: Servers,
    network: Network,
    wiring: Wiring,
    _lock: Lock,
}

/// A pod: its namespace and its place in the plan.
#[derive(Debug)]
pub struct Pod {
    plan: PodPlan,
    netns: Netns,
    host_interface: String,
}

impl Pod {
    pub(crate) fn new(plan: PodPlan, netns: Netns, wiring: Wiring) -> Self {
        Self {
            host_interface: plan.host_interface(wiring),
            plan,
            netns,
        }
    }

    /// Name, labels, ports, addresses.
    pub fn plan(&self) -> &PodPlan {
        &self.plan
    }

    /// `namespace/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.plan.namespace, self.plan.name)
    }

    /// Addresses.
    pub fn addresses(&self) -> Addresses {
        self.plan.addresses
    }

    /// Its network namespace; the interface in it is `eth0`.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node's end of its cable, where enforcers at the pod's door sit.
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }
}

impl Lab {
    /// Builds the network, starts the servers, and returns once node, pods and master reach each
    /// other. Waits for another lab on this machine to end first, and says so on stderr.
    ///
    /// Needs root and Debian's `iproute2` and `nftables`; an error names the command that failed.
    pub fn new(wiring: Wiring) -> Result<Self> {
        Self::with_servers(wiring, Servers::start)
    }

    /// The same without the stand-ins: their ports are free for real servers, the API server's first of all.
    pub fn without_servers(wiring: Wiring) -> Result<Self> {
        Self::with_servers(wiring, |_| Servers::none())
    }

    fn with_servers(
        wiring: Wiring,
        serve: impl FnOnce(&Network) -> Result<Servers>,
    ) -> Result<Self> {
        let lock = Lock::acquire()?;
        let network = Network::build(wiring)?;
        let servers = serve(&network)?;
        let lab = Self {
            servers,
            network,
            wiring,
            _lock: lock,
        };
        lab.wait_ready()
            .context("the lab's network does not carry packets")?;
        Ok(lab)
    }

    /// How pods are wired to their node.
    pub fn wiring(&self) -> Wiring {
        self.wiring
    }

    /// The namespace of the node under test, `node-1`. Enforcers work here, the kubelet's probes
    /// leave from here, and the tracer runs here.
    pub fn node(&self) -> &Netns {
        &self.network.node
    }

    /// The namespace of `node-2`.
    pub fn other_node(&self) -> &Netns {
        &self.network.other_node
    }

    /// The namespace of the master.
    pub fn master(&self) -> &Netns {
        &self.network.master
    }

    /// The namespace of a host outside the cluster.
    pub fn remote(&self) -> &Netns {
        &self.network.remote
    }

    /// The namespace of the router between the networks.
    pub fn router(&self) -> &Netns {
        &self.network.router
    }

    /// Every pod.
    pub fn pods(&self) -> &[Pod] {
        &self.network.pods
    }

    /// The pods of the node under test.
    pub fn local_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods().iter().filter(|pod| pod.plan().node == "node-1")
    }

    /// The pod of that name (`vault-0`, `vault-1`, `client`, or `coredns` for short).
    ///
    /// # Panics
    ///
    /// Where there is no such pod: the plan is fixed, so that is a mistake in the caller.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods()
            .iter()
            .find(|pod| {
                let own = pod.plan().name;
                own == name || own.split('-').next() == Some(name)
            })
            .unwrap_or_else(|| panic!("the lab has no pod `{name}`"))
    }

    /// The cluster as `kubectl get -o yaml` prints it, documents divided by `---`: Namespaces, Nodes,
    /// Pods with their probes, Services, `EndpointSlices`; no policies, which are the caller's to add.
    pub fn manifests(&self) -> String {
        self.manifests_with_primary(Family::V4)
    }

    /// The same for a cluster whose primary family is the given one: Service `default/kubernetes` and
    /// its endpoint are of that family only, as the API server makes them.
    pub fn manifests_with_primary(&self, family: Family) -> String {
        manifests::cluster(family)
    }

    /// What the stand-ins logged so far, worded as Go programs do.
    pub fn logs(&self) -> Vec<LogLine> {
        self.servers.logs()
    }

    /// A client of the lab's TLS servers that knows their certificate authority.
    pub fn https(&self) -> HttpsClient {
        self.servers.client()
    }

    /// Starts a program as a `DaemonSet` would run on the node under test, with `hostNetwork`. It is
    /// killed with the lab.
    pub fn spawn_on_node(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Child> {
        self.node().spawn(program, configure)
    }

    /// Waits until echo requests come back on every path, both families.
    fn wait_ready(&self) -> Result<()> {
        let mut paths: Vec<(&Netns, Addresses)> = vec![
            (self.node(), MASTER),
            (self.remote(), NODE),
            (self.pod("client").netns(), REMOTE),
        ];
        for pod in self.pods() {
            paths.push((self.node(), pod.addresses()));
            paths.push((pod.netns(), MASTER));
        }
        for (from, to) in paths {
            for ip in to.both() {
                let deadline = Instant::now() + READY;
                while traffic::ping(from, ip, 1, Duration::from_millis(200))?.received == 0 {
                    if Instant::now() > deadline {
                        bail!(
                            "no echo reply from {ip} to {} within {} s",
                            from.name(),
                            READY.as_secs()
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Where a pod's Vault listens.
    pub fn vault(&self, pod: &str, family: Family) -> SocketAddr {
        SocketAddr::new(self.pod(pod).addresses().of(family), VAULT_PORT)
    }
}
