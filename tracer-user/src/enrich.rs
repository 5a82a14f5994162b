//! Who is source and destination.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use tracer_policy::model::{Labels, Pod, Protocol};
use tracer_policy::{Cluster, Owner, Role};

use crate::decode::{Flow, Story};
use crate::record::{Endpoint, Peer, PeerKind, ProcessInfo, ServiceInfo};

/// The ranges that pods get their addresses from, as far as Nodes tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRanges(Vec<IpNet>);

impl PodRanges {
    /// `spec.podCIDRs` of all nodes.
    pub fn of(cluster: &Cluster) -> Self {
        let ranges: Vec<_> = cluster
            .nodes()
            .flat_map(|node| &node.pod_cidrs)
            .map(IpNet::trunc)
            .collect();
        // Neighbours merge, so that a large cluster has few.
        Self(IpNet::aggregate(&ranges))
    }

    fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(&ip))
    }
}

/// Whether the cluster's answer to "whose address is this" can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Yes.
    Yes,
    /// It is out of a pod range or near other pods', and no pod that is held has it: newer than the state, or gone.
    Unheld,
    /// Nobody known has it, and those who may could not be read.
    Unread,
    /// It is an address that everyone has or nobody: loopback, link-local, multicast.
    Nobodys,
}

impl Known {
    fn of(owner: Owner<'_>, ip: IpAddr, cluster: &Cluster, ranges: &PodRanges) -> Self {
        if !matches!(owner, Owner::External) {
            Self::Yes
        } else if is_nobodys(ip) {
            Self::Nobodys
        } else if cluster.unread_at(ip).is_some() {
            Self::Unread
        } else if ranges.contain(ip.to_canonical()) || cluster.is_among_pods(ip) {
            Self::Unheld
        } else {
            Self::Yes
        }
    }
}

/// IPv4's link-local range is left out: clouds and node-local caches serve there.
fn is_nobodys(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Both ends of a packet, with whom the cluster says they are.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The packet's own header.
    pub flow: &'a Flow,
    /// What is known of its way.
    pub story: &'a Story,
    /// When it was dropped.
    pub time: Timestamp,
    /// Who sent it.
    pub source: Owner<'a>,
    /// Whether that can be relied on.
    pub source_known: Known,
    /// Who was to get it.
    pub destination: Owner<'a>,
    /// Whether that can be relied on.
    pub destination_known: Known,
}

impl<'a> Ends<'a> {
    /// Looks both ends up as they were at `time`.
    pub fn of(
        flow: &'a Flow,
        story: &'a Story,
        time: Timestamp,
        cluster: &'a Cluster,
        ranges: &PodRanges,
    ) -> Self {
        let end = |ip, role| match cluster.owner_at(ip, time, role) {
            Some(owner) => (owner, Known::of(owner, ip, cluster, ranges)),
            None => (Owner::External, Known::Unheld),
        };
        let (source, source_known) = end(flow.source, Role::Sender);
        let (destination, destination_known) = end(flow.destination, Role::Receiver);
        Self {
            flow,
            story,
            time,
            source,
            source_known,
            destination,
            destination_known,
        }
    }

    /// Whether an end is a pod's that the cluster state does not hold, or not yet.
    pub fn has_unheld(&self) -> bool {
        self.has(Known::Unheld)
    }

    /// Whether an end is of those that could not be read.
    pub fn has_unread(&self) -> bool {
        self.has(Known::Unread)
    }

    fn has(&self, known: Known) -> bool {
        self.source_known == known || self.destination_known == known
    }

    /// The sending pod.
    pub fn source_pod(&self) -> Option<&'a Pod> {
        pod(self.source)
    }

    /// The receiving pod.
    pub fn destination_pod(&self) -> Option<&'a Pod> {
        pod(self.destination)
    }

    /// The ends as the record shows them.
    pub fn peers(&self, cluster: &Cluster) -> (Peer, Peer) {
        let flow = self.flow;
        let mut source = peer(self.source, flow.source, flow.source_port);
        let mut destination = peer(self.destination, flow.destination, flow.destination_port);
        for (peer, known) in [
            (&mut source, self.source_known),
            (&mut destination, self.destination_known),
        ] {
            if known != Known::Yes {
                peer.kind = PeerKind::Unknown;
            }
        }
        // A node's address may be a load balancer's as well (K3s's own announces just these).
        if matches!(self.destination, Owner::Node(..) | Owner::Service(_)) {
            destination.service = flow
                .destination_port
                .and_then(|port| service(flow.destination, port, flow.protocol, cluster));
        }
        if let Some(original) = self.story.original {
            // Connection tracking knows what the packet does not any more.
            destination.service = service(original.ip(), original.port(), flow.protocol, cluster);
        }
        tell(self.story, &mut source, &mut destination);
        (source, destination)
    }
}

/// Puts a packet's story with its ends.
pub fn tell(story: &Story, source: &mut Peer, destination: &mut Peer) {
    source.process = story.process.as_ref().map(|process| ProcessInfo {
        pid: process.pid,
        name: process.name.clone(),
    });
    destination.original = story.original.map(|original| Endpoint {
        ip: original.ip(),
        port: original.port(),
    });
}

fn service(ip: IpAddr, port: u16, protocol: Protocol, cluster: &Cluster) -> Option<ServiceInfo> {
    let (service, own) = cluster.service_at(ip, port, protocol)?;
    Some(ServiceInfo {
        namespace: service.id.namespace.clone(),
        name: service.id.name.clone(),
        ip,
        port: own.port,
    })
}

fn pod(owner: Owner<'_>) -> Option<&Pod> {
    match owner {
        Owner::Pod(pod) => Some(pod),
        Owner::Node(..) | Owner::Service(_) | Owner::External => None,
    }
}

/// An end of which nothing but the address is known.
pub fn stranger(ip: IpAddr, port: Option<u16>, kind: PeerKind) -> Peer {
    Peer {
        ip,
        port,
        kind,
        namespace: None,
        pod: None,
        workload: None,
        node: None,
        labels: Labels::new(),
        service: None,
        original: None,
        process: None,
        uid: None,
    }
}

fn peer(owner: Owner<'_>, ip: IpAddr, port: Option<u16>) -> Peer {
    match owner {
        Owner::Pod(pod) => Peer {
            namespace: Some(pod.id.namespace.clone()),
            pod: Some(pod.id.name.clone()),
            workload: pod.workload.as_ref().map(|workload| workload.name.clone()),
            node: pod.node.clone(),
            labels: pod.labels.clone(),
            uid: pod.uid.clone(),
            ..stranger(ip, port, PeerKind::Pod)
        },
        Owner::Node(node, _) => Peer {
            node: Some(node.name.clone()),
            ..stranger(ip, port, PeerKind::Node)
        },
        Owner::Service(_) => stranger(ip, port, PeerKind::Service),
        Owner::External => stranger(ip, port, PeerKind::External),
    }
}
