//! DNS: the cluster's own, and caches on the nodes.

use std::net::{IpAddr, Ipv4Addr};

use tracer_policy::Cluster;
use tracer_policy::model::{ObjectRef, Protocol};

use super::Way;

/// The port a Service serves DNS at; the pods behind it may use another (`OpenShift`'s 5353).
pub(super) const PORT: u16 = 53;

/// Where the node-local DNS cache listens: its own default and that of kubespray.
const NODE_LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 25, 10)),
];

/// Whether it goes to a Service that serves DNS: at its virtual address, at an endpoint of it, or at a
/// node-local cache.
pub(super) fn serves(way: &Way<'_>, cluster: &Cluster) -> bool {
    let Some(port) = way.port else { return false };
    if !matches!(way.protocol, Protocol::Tcp | Protocol::Udp) {
        return false;
    }
    if port == PORT
        && (is_node_local(way.server_ip)
            || cluster
                .service_at(way.server_ip, port, way.protocol)
                .is_some())
    {
        return true;
    }
    let serves_dns = |id| {
        cluster.service(id).is_some_and(|service| {
            service.ports.iter().any(|own| {
                own.port == PORT
                    && own.protocol == way.protocol
                    && leads_to(cluster, id, &own.name, way)
            })
        })
    };
    cluster
        .services_behind(way.server_ip, port, way.protocol)
        .into_iter()
        .any(serves_dns)
}

/// Whether a node-local cache listens there. It runs in the host's network, so that no `podSelector` can
/// match it (kubernetes/kubernetes#70555).
pub(super) fn is_node_local(ip: IpAddr) -> bool {
    NODE_LOCAL.contains(&ip)
}

/// Whether the port of that name of a Service leads to the way's server.
fn leads_to(cluster: &Cluster, service: &ObjectRef, name: &str, way: &Way<'_>) -> bool {
    cluster.endpoints_of(service).any(|slice| {
        slice.ports.iter().any(|own| {
            own.name == name && Some(own.port) == way.port && own.protocol == way.protocol
        }) && slice
            .endpoints
            .iter()
            .any(|endpoint| endpoint.ip == way.server_ip)
    })
}
