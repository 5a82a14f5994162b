//! Nodes and the addresses their own processes send from.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Labels;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Every address the node's own processes may send from or listen on, each once.
    pub addresses: Vec<NodeAddress>,
    /// `spec.podCIDRs` (or `spec.podCIDR`).
    pub pod_cidrs: Vec<IpNet>,
    /// Whether a `node-role.kubernetes.io/control-plane` or `.../master` label is set.
    pub control_plane: bool,
}

/// One of a node's addresses, and where it was learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// The address.
    pub ip: IpAddr,
    /// Where it comes from.
    pub kind: NodeAddressKind,
}

/// Where a node address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeAddressKind {
    /// `status.addresses` of type `InternalIP`.
    Internal,
    /// `status.addresses` of type `ExternalIP`.
    External,
    /// First host of a pod CIDR: the bridge the node's probes to its own pods come from (flannel,
    /// kindnet, Antrea).
    PodGateway,
    /// A pod CIDR's network address: flannel's VXLAN interface, seen from other nodes.
    TunnelEndpoint,
    /// An annotation of the CNI or of K3s (`projectcalico.org/IPv4VXLANTunnelAddr`, ...).
    Annotation,
    /// Read from the host's own interfaces.
    Host,
}
