//! What a rule names the other end by.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::legs::Leg;
use super::target::stable_labels;
use super::{Refusal, cilium};
use crate::cluster::Cluster;
use crate::flow::End;
use crate::metadata::is_metadata_service;
use crate::model::{NodeAddressKind, Pod};
use crate::policy::Direction;
use crate::profile::Profile;
use crate::service_range;

/// A peer of a rule to be, with an end that stands for it in the proof.
#[derive(Clone, Debug)]
pub(super) struct PeerDraft {
    pub(super) peer: NetworkPolicyPeer,
    pub(super) stands_for: End,
    pub(super) port: u16,
}

/// The peers for a leg, and why they are these.
pub(super) struct Peers {
    pub(super) list: Vec<PeerDraft>,
    pub(super) reason: String,
    pub(super) note: Option<String>,
}

/// `selector` is that of the pods whose isolation is to be opened.
pub(super) fn of(
    cluster: &Cluster,
    profile: Profile,
    leg: &Leg,
    selector: &LabelSelector,
) -> Result<Peers, Refusal> {
    match &leg.other {
        End::Pod(id) => match cluster.pod_at(id) {
            Some(pod) if !pod.host_network => pod_peer(cluster, leg, pod),
            Some(pod) => {
                let ip = pod.ips.first().copied().or_else(|| {
                    let node = cluster.node(pod.node.as_deref()?)?;
                    let internal = |kind| kind == NodeAddressKind::Internal;
                    node.addresses
                        .iter()
                        .find(|a| internal(a.kind))
                        .map(|a| a.ip)
                });
                match ip {
                    Some(ip) => address_peer(cluster, profile, leg, selector, ip),
                    None => Err(Refusal::Unknown(format!("pod {id} has no address yet"))),
                }
            }
            None => Err(Refusal::Unknown(format!("pod {id} is not in the cluster"))),
        },
        End::Ip(ip) => match cluster.pod_entry_at(*ip) {
            Some(entry) => pod_peer(cluster, leg, &entry.pod),
            None => address_peer(cluster, profile, leg, selector, *ip),
        },
    }
}

fn pod_peer(cluster: &Cluster, leg: &Leg, pod: &Pod) -> Result<Peers, Refusal> {
    let labels = stable_labels(cluster, pod)?;
    let select = |labels| LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    };
    // Both selectors in one item: as two items they would allow either alone.
    let namespace = [(
        "kubernetes.io/metadata.name".to_owned(),
        pod.id.namespace.clone(),
    )];
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(select(namespace.into())),
        pod_selector: Some(select(labels)),
        ip_block: None,
    };
    let who = pod.workload.as_ref().map_or_else(
        || format!("pod {}", pod.id),
        |w| format!("{} {}/{}", w.kind, pod.id.namespace, w.name),
    );
    Ok(Peers {
        list: vec![PeerDraft {
            peer,
            stands_for: leg.other.clone(),
            port: leg.port,
        }],
        reason: who,
        note: None,
    })
}

fn address_peer(
    cluster: &Cluster,
    profile: Profile,
    leg: &Leg,
    selector: &LabelSelector,
    ip: IpAddr,
) -> Result<Peers, Refusal> {
    if leg.direction == Direction::Egress && is_metadata_service(ip, Some(leg.port)) {
        return Err(Refusal::Metadata(ip));
    }
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
        return Err(Refusal::NotAHost(ip));
    }
    let node = cluster.node_at(ip);
    let is_endpoint = |at: &(IpAddr, u16)| *at == (ip, leg.port);
    let api_server = cluster.api_server_endpoints();
    let to_api_server = leg.direction == Direction::Egress && api_server.iter().any(is_endpoint);
    if node.is_some() && !profile.ipblock_matches_nodes {
        let node = match leg.direction {
            Direction::Ingress => cilium::Node::Any,
            Direction::Egress if to_api_server => cilium::Node::ApiServer,
            Direction::Egress => cilium::Node::One,
        };
        return Err(cilium::refusal(cluster, leg, selector, node));
    }
    if to_api_server {
        // Every control-plane node, not only the one seen: the Service spreads over all of them.
        let same_family = api_server
            .iter()
            .filter(|(at, _)| at.is_ipv4() == ip.is_ipv4());
        return Ok(Peers {
            list: same_family.map(|(at, port)| host(*at, *port)).collect(),
            reason: "the API server: every endpoint of default/kubernetes, which is a process on the control-plane nodes and no pod".to_owned(),
            note: None,
        });
    }
    if let Some((node, kind)) = node {
        if leg.direction == Direction::Egress {
            return Ok(Peers {
                list: vec![host(ip, leg.port)],
                reason: format!("node {}", node.name),
                note: None,
            });
        }
        // Every node's address of the kind that was seen: pods move.
        let mut list: Vec<PeerDraft> = cluster
            .nodes()
            .flat_map(|node| &node.addresses)
            .filter(|a| a.kind == kind && a.ip.is_ipv4() == ip.is_ipv4())
            .map(|a| host(a.ip, leg.port))
            .collect();
        list.dedup_by(|a, b| a.stands_for == b.stands_for);
        return Ok(Peers {
            list,
            reason: format!(
                "the nodes' own processes (kubelet probes among them): every node's {}",
                kind_text(kind)
            ),
            note: Some(node_note(cluster, leg)),
        });
    }
    if let Some(service) = cluster.services_by_ip(ip).next() {
        return Err(Refusal::ServiceAddress(ip, service.id.clone()));
    }
    let services = service_range::of(cluster, ip.is_ipv4());
    if let Some(range) = services.filter(|range| range.contains(&ip)) {
        return Err(Refusal::UnknownService(ip, range));
    }
    let in_pod_network = |net: &IpNet| net.contains(&ip);
    if cluster
        .nodes()
        .any(|n| n.pod_cidrs.iter().any(in_pod_network))
    {
        return Err(Refusal::StalePodAddress(ip));
    }
    Ok(Peers {
        list: vec![host(ip, leg.port)],
        reason: format!("{ip}, outside the cluster"),
        note: Some(format!(
            "{ip} may be a NAT gateway or one of many addresses of a service: check before relying on it"
        )),
    })
}

fn node_note(cluster: &Cluster, leg: &Leg) -> String {
    let joins = "a node that joins later needs its address added here";
    let target = cluster.pod_at(&leg.subject);
    let opened = target.iter().flat_map(|pod| &pod.ips).find_map(|ip| {
        cluster
            .services_behind(*ip, leg.port, leg.flow.protocol)
            .into_iter()
            .filter_map(|id| cluster.service(id))
            .find(|service| service.ports.iter().any(|port| port.node_port.is_some()))
    });
    match opened {
        None => joins.to_owned(),
        Some(service) => format!(
            "{joins}; Service {} has a NodePort here, and what comes through it bears a node's address too, whoever \
             sent it: this lets all of that in (externalTrafficPolicy: Local keeps the sender's address)",
            service.id
        ),
    }
}

const fn kind_text(kind: NodeAddressKind) -> &'static str {
    match kind {
        NodeAddressKind::Internal => "InternalIP",
        NodeAddressKind::External => "ExternalIP",
        NodeAddressKind::PodGateway => "pod gateway address",
        NodeAddressKind::TunnelEndpoint => "tunnel address",
        NodeAddressKind::Annotation => "address as its CNI annotates it",
        NodeAddressKind::Host => "interface address",
    }
}

fn host(ip: IpAddr, port: u16) -> PeerDraft {
    PeerDraft {
        peer: NetworkPolicyPeer {
            ip_block: Some(IPBlock {
                cidr: IpNet::from(ip).to_string(),
                except: None,
            }),
            ..Default::default()
        },
        stands_for: End::Ip(ip),
        port,
    }
}
