//! Where pods have their addresses, by the pods that are there: Calico and Cilium give addresses out of pools that
//! no Node names.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Cluster;
use crate::model::NodeAddressKind;

/// Blocks with a pod, and how many pods' addresses are in each.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks(HashMap<IpNet, u32>);

impl Blocks {
    pub(super) fn add(&mut self, ip: IpAddr) {
        if let Some(block) = block(ip) {
            *self.0.entry(block).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, ip: IpAddr) {
        let Some(block) = block(ip) else { return };
        if let Some(pods) = self.0.get_mut(&block) {
            *pods -= 1;
            if *pods == 0 {
                self.0.remove(&block);
            }
        }
    }
}

/// As large as what a node gets by default where it gets a range at all; pools' own blocks are smaller.
fn block(ip: IpAddr) -> Option<IpNet> {
    let prefix = if ip.is_ipv4() { 24 } else { 64 };
    IpNet::new(ip, prefix).ok().map(|net| net.trunc())
}

impl Cluster {
    /// Whether pods have their addresses around `ip`, and no node does: where pods share a network with machines,
    /// whoever is near them may be one.
    pub fn is_among_pods(&self, ip: IpAddr) -> bool {
        let Some(block) = block(ip.to_canonical()) else {
            return false;
        };
        let is_machines =
            |kind| matches!(kind, NodeAddressKind::Internal | NodeAddressKind::External);
        self.pod_blocks.0.contains_key(&block)
            && !self
                .nodes
                .values()
                .flat_map(|node| &node.addresses)
                .any(|address| is_machines(address.kind) && block.contains(&address.ip))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;
    use serde_json::json;

    use super::*;
    use crate::model::{Node, Pod};

    fn pod(name: &str, ip: &str) -> Pod {
        let object: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n"}, "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": ip}}))
        .unwrap();
        Pod::try_from(&object).unwrap()
    }

    #[test]
    fn an_address_near_pods_is_of_theirs_while_there_are_any() {
        let mut cluster = Cluster::new();
        let among = |cluster: &Cluster, ip: &str| cluster.is_among_pods(ip.parse().unwrap());
        cluster.apply_pod(pod("a", "172.16.5.64"));
        cluster.apply_pod(pod("a", "172.16.5.64"));
        cluster.apply_pod(pod("b", "172.16.5.65"));
        cluster.apply_pod(pod("c", "fd00:5::1"));
        assert!(among(&cluster, "172.16.5.200") && among(&cluster, "::ffff:172.16.5.200"));
        assert!(among(&cluster, "fd00:5::9999"));
        assert!(!among(&cluster, "172.16.6.64") && !among(&cluster, "fd00:6::1"));
        cluster.remove_pod("n", "b");
        assert!(among(&cluster, "172.16.5.65"));
        cluster.remove_pod("n", "a");
        assert!(!among(&cluster, "172.16.5.65"));
    }

    #[test]
    fn a_network_that_pods_share_with_machines_is_not_theirs() {
        let mut cluster = Cluster::new();
        cluster.apply_pod(pod("a", "10.0.1.20"));
        let node: core::Node = serde_json::from_value(json!({
            "metadata": {"name": "node-a", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "172.16.5.64"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.1.4"}]}}))
        .unwrap();
        cluster.apply_node(Node::try_from(&node).unwrap());
        assert!(!cluster.is_among_pods("10.0.1.30".parse().unwrap()));
        cluster.apply_pod(pod("b", "172.16.5.65"));
        assert!(
            cluster.is_among_pods("172.16.5.66".parse().unwrap()),
            "a tunnel's address is out of the pods' block"
        );
    }
}
