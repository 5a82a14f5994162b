//! The host's own addresses: what a process on this node, the kubelet among them, may send from.

use std::io;
use std::net::IpAddr;

use tracer_policy::Cluster;
use tracer_policy::model::{Labels, Node, NodeAddressKind};

/// Interfaces that hold other people's addresses: kube-proxy's IPVS mode puts every Service's on one,
/// the node-local DNS cache its own and that of the cluster's DNS.
const FOREIGN: [&str; 2] = ["kube-ipvs0", "nodelocaldns"];

/// All addresses of the network namespace this process runs in that are its own: not loopback's, not
/// those of Services.
///
/// # Errors
/// What the system says.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(|interface| is_own(&interface.name, interface.ip()))
        .map(|interface| interface.ip())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Gives node `name` these `addresses` of the host's, and none it had of it before. It is made up where the
/// cluster does not know it, so that traffic from this host is never taken for a stranger's.
pub fn merge(cluster: &mut Cluster, name: &str, addresses: &[IpAddr]) {
    let mut node = cluster.node(name).cloned().unwrap_or_else(|| Node {
        name: name.to_owned(),
        labels: Labels::new(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        control_plane: false,
    });
    node.addresses
        .retain(|address| address.kind != NodeAddressKind::Host);
    cluster.remove_node(name);
    for ip in addresses {
        // An address that another object has already is not taken away from it.
        let is_own = || node.addresses.iter().any(|own| own.ip == *ip);
        if cluster.node_at(*ip).is_none() && !is_own() && !is_link_local(*ip) {
            node.add_address(*ip, NodeAddressKind::Host);
        }
    }
    cluster.apply_node(node);
}

fn is_own(interface: &str, ip: IpAddr) -> bool {
    !ip.is_loopback() && !FOREIGN.contains(&interface)
}

/// Every host has the same kind of these, so they tell none apart.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services_that_stand_on_an_interface_are_not_the_hosts() {
        let own = |interface: &str, ip: &str| is_own(interface, ip.parse().unwrap());
        assert!(own("eth0", "10.10.0.11"));
        assert!(own("cni0", "10.42.1.1"));
        assert!(
            own("lo", "192.0.2.1"),
            "an anycast address of the host's own"
        );
        assert!(!own("lo", "127.0.0.1"));
        assert!(!own("kube-ipvs0", "10.43.0.1"));
        assert!(!own("nodelocaldns", "10.43.0.10"));
    }
}
