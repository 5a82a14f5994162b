//! Who is source and destination.

use std::net::IpAddr;

use tracer_policy::model::{Labels, Pod, Protocol};
use tracer_policy::{Cluster, Owner};

use crate::decode::Flow;
use crate::record::{Peer, PeerKind, ServiceInfo};

/// Both ends of a packet, with whom the cluster says they are.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The packet's own header.
    pub flow: &'a Flow,
    /// Who sent it.
    pub source: Owner<'a>,
    /// Who was to get it.
    pub destination: Owner<'a>,
}

impl<'a> Ends<'a> {
    /// Looks both ends up.
    pub fn of(flow: &'a Flow, cluster: &'a Cluster) -> Self {
        Self {
            flow,
            source: cluster.owner(flow.source),
            destination: cluster.owner(flow.destination),
        }
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
    pub fn peers(&self) -> (Peer, Peer) {
        let flow = self.flow;
        let source = peer(self.source, flow.source, flow.source_port, flow.protocol);
        let destination = peer(
            self.destination,
            flow.destination,
            flow.destination_port,
            flow.protocol,
        );
        (source, destination)
    }
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
    }
}

fn peer(owner: Owner<'_>, ip: IpAddr, port: Option<u16>, protocol: Protocol) -> Peer {
    match owner {
        Owner::Pod(pod) => Peer {
            namespace: Some(pod.id.namespace.clone()),
            pod: Some(pod.id.name.clone()),
            workload: pod.workload.as_ref().map(|workload| workload.name.clone()),
            node: pod.node.clone(),
            labels: pod.labels.clone(),
            ..stranger(ip, port, PeerKind::Pod)
        },
        Owner::Node(node, _) => Peer {
            node: Some(node.name.clone()),
            ..stranger(ip, port, PeerKind::Node)
        },
        Owner::Service(service) => {
            let known = service
                .ports
                .iter()
                .find(|own| Some(own.port) == port && own.protocol == protocol)
                .map(|own| ServiceInfo {
                    namespace: service.id.namespace.clone(),
                    name: service.id.name.clone(),
                    ip,
                    port: own.port,
                });
            Peer {
                service: known,
                ..stranger(ip, port, PeerKind::Service)
            }
        }
        Owner::External => stranger(ip, port, PeerKind::External),
    }
}
