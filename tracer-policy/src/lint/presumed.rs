//! What is taken for given where the objects are no whole cluster: a folder of manifests has neither
//! nodes nor the API server nor the cluster's DNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cluster::Cluster;
use crate::model::{ContainerPort, Labels, ObjectRef, Pod, Protocol};
use crate::policy::{Direction, Peer};

/// Whether the cluster's own parts are among the objects.
pub(super) fn is_whole(cluster: &Cluster) -> bool {
    cluster.nodes().next().is_some()
}

/// The ports an API server listens on: K3s and kubeadm on the first, managed ones on the second.
pub(super) const API_SERVER_PORTS: [u16; 2] = [6443, 443];

/// Addresses that stand for whatever has one of its own and is no pod: one of every `ipBlock`, any of which
/// may be meant for it, and one that only a rule for everybody lets through.
pub(super) fn outsiders(cluster: &Cluster) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = cluster
        .policies()
        .flat_map(|policy| {
            Direction::ALL
                .into_iter()
                .flat_map(|direction| policy.rules(direction).unwrap_or_default())
        })
        .flat_map(|rule| rule.peers.as_deref().unwrap_or_default())
        .filter_map(|peer| match peer {
            Peer::Ip { cidr, except } => cidr
                .hosts()
                .take(256)
                .find(|ip| !except.iter().any(|net| net.contains(ip))),
            Peer::Pods { .. } => None,
        })
        .collect();
    // Reserved for documentation (RFC 5737, RFC 3849): nobody's.
    found.push(Ipv4Addr::new(203, 0, 113, 77).into());
    found.push(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77).into());
    found.sort_unstable();
    found.dedup();
    found
}

/// The cluster with its DNS pods, as every distribution labels them, where they are not among the objects.
pub(super) fn with_dns(cluster: &Cluster) -> (Cluster, ObjectRef) {
    let id = ObjectRef::new("kube-system", "coredns-*");
    let mut cluster = cluster.clone();
    let port = |protocol| ContainerPort {
        name: None,
        port: 53,
        protocol,
    };
    cluster.apply_pod(Pod {
        labels: Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        ports: vec![port(Protocol::Udp), port(Protocol::Tcp)],
        ..Pod::named(id.clone())
    });
    (cluster, id)
}
