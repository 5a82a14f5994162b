//! The host's own addresses: what a process on this node, the kubelet among them, may send from.

use std::io;
use std::net::IpAddr;

use tracer_policy::Cluster;
use tracer_policy::model::{Labels, Node, NodeAddressKind};

/// All addresses of the network namespace this process runs in, without loopback's.
///
/// # Errors
/// What the system says.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| !ip.is_loopback())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Adds `addresses` to node `name`, which is made up where the cluster does not know it, so that
/// traffic from this host is never taken for a stranger's.
pub fn merge(cluster: &mut Cluster, name: &str, addresses: &[IpAddr]) {
    let mut node = cluster.node(name).cloned().unwrap_or_else(|| Node {
        name: name.to_owned(),
        labels: Labels::new(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        control_plane: false,
    });
    for ip in addresses {
        // An address that another object has already is not taken away from it.
        if cluster.node_at(*ip).is_none() && !is_link_local(*ip) {
            node.add_address(*ip, NodeAddressKind::Host);
        }
    }
    cluster.apply_node(node);
}

/// Every host has the same kind of these, so they tell none apart.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
