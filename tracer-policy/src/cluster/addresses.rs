//! Who owns an address.

use std::net::IpAddr;

use super::{Cluster, PodEntry};
use crate::model::{Node, NodeAddressKind, Pod, Service};

/// Who owns an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Owner<'a> {
    /// A pod of its own: neither finished nor on the node's network.
    Pod(&'a Pod),
    /// A node's own processes, hostNetwork pods among them, by an address of that kind.
    Node(&'a Node, NodeAddressKind),
    /// A Service's virtual address.
    Service(&'a Service),
    /// Nobody the cluster knows.
    External,
}

impl Cluster {
    /// Who owns `ip`.
    ///
    /// A pod comes before a node, since part of a node's addresses is derived (the first host of a pod
    /// CIDR is a bridge with one CNI and a pod's address with another); a node comes before a Service,
    /// since a load balancer may announce node addresses as its own.
    pub fn owner(&self, ip: IpAddr) -> Owner<'_> {
        let ip = ip.to_canonical();
        if let Some(entry) = self.pod_entry_at(ip) {
            return Owner::Pod(&entry.pod);
        }
        if let Some((node, kind)) = self.node_at(ip) {
            return Owner::Node(node, kind);
        }
        if let Some(service) = self.services_by_ip(ip).next() {
            return Owner::Service(service);
        }
        Owner::External
    }

    /// The pod that owns `ip`; of several that claim it the one that started last, or else came last.
    pub(crate) fn pod_entry_at(&self, ip: IpAddr) -> Option<&PodEntry> {
        let claimants = self.pods_by_ip.get(&ip)?.iter();
        claimants
            .filter_map(|id| self.pod_by_id(*id))
            .max_by_key(|entry| entry.pod.started)
    }

    /// The pods of which one owns `ip` and it cannot be said which: the others started no earlier, or nobody
    /// says when. None where it can be said.
    pub(crate) fn claimants(&self, ip: IpAddr) -> Vec<&PodEntry> {
        let Some([_, _, ..]) = self.pods_by_ip.get(&ip).map(Vec::as_slice) else {
            return Vec::new();
        };
        let all = self.pods_by_ip.get(&ip).into_iter().flatten();
        let all: Vec<_> = all.filter_map(|id| self.pod_by_id(*id)).collect();
        if all.iter().any(|entry| entry.pod.started.is_none()) {
            return all;
        }
        let last = all.iter().filter_map(|entry| entry.pod.started).max();
        let mut latest: Vec<_> = all
            .into_iter()
            .filter(|entry| entry.pod.started == last)
            .collect();
        if latest.len() == 1 {
            latest.clear();
        }
        latest
    }

    /// The node that has `ip`, and what kind of address it is.
    pub fn node_at(&self, ip: IpAddr) -> Option<(&Node, NodeAddressKind)> {
        let name = self.nodes_by_ip.get(&ip)?.first()?;
        let node = self.nodes.get(name)?;
        let address = node.addresses.iter().find(|a| a.ip == ip)?;
        Some((node, address.kind))
    }
}
