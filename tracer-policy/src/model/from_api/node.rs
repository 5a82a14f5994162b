//! Nodes: every address their own processes may send from.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::super::{Node, NodeAddress, NodeAddressKind};
use super::{ObjectError, Reader};

/// Annotations that hold an address of the node, with or without a prefix length; lists are separated
/// by commas. Flannel, Calico, K3s and Cilium write them.
const ADDRESS_ANNOTATIONS: [&str; 15] = [
    "flannel.alpha.coreos.com/public-ip",
    "flannel.alpha.coreos.com/public-ip-overwrite",
    "flannel.alpha.coreos.com/public-ipv6",
    "projectcalico.org/IPv4Address",
    "projectcalico.org/IPv6Address",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
    "k3s.io/internal-ip",
    "k3s.io/external-ip",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    "alpha.kubernetes.io/provided-node-ip",
];

/// Labels that mark a control-plane node; any value, `true` on K3s.
const CONTROL_PLANE_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

impl TryFrom<&core::Node> for Node {
    type Error = ObjectError;

    fn try_from(object: &core::Node) -> Result<Self, ObjectError> {
        let reader = Reader::new("Node", &object.metadata);
        let labels = reader.labels();
        let mut node = Self {
            name: reader.name()?,
            addresses: Vec::new(),
            pod_cidrs: pod_cidrs(&reader, object.spec.as_ref())?,
            control_plane: CONTROL_PLANE_LABELS
                .iter()
                .any(|label| labels.contains_key(*label)),
            labels,
        };
        let status = object.status.as_ref();
        let addresses = status
            .and_then(|status| status.addresses.as_deref())
            .unwrap_or_default();
        for (index, address) in addresses.iter().enumerate() {
            let kind = match address.type_.as_str() {
                "InternalIP" => NodeAddressKind::Internal,
                "ExternalIP" => NodeAddressKind::External,
                // Names; no packet bears them.
                _ => continue,
            };
            let field = || format!("status.addresses[{index}].address");
            node.add_address(reader.ip(field, &address.address)?, kind);
        }
        for cidr in node.pod_cidrs.clone() {
            if let Some(gateway) = first_host(cidr) {
                node.add_address(gateway, NodeAddressKind::PodGateway);
            }
            node.add_address(cidr.network(), NodeAddressKind::TunnelEndpoint);
        }
        let annotations = object.metadata.annotations.as_ref();
        for key in ADDRESS_ANNOTATIONS {
            let Some(value) = annotations.and_then(|annotations| annotations.get(key)) else {
                continue;
            };
            for text in value.split(',').map(str::trim) {
                // Annotations are free text: what is no address is no error.
                let ip = text
                    .parse()
                    .or_else(|_| text.parse().map(|net: IpNet| net.addr()));
                if let Ok(ip) = ip {
                    node.add_address(ip, NodeAddressKind::Annotation);
                }
            }
        }
        Ok(node)
    }
}

impl Node {
    /// Adds an address unless the node has it already.
    pub fn add_address(&mut self, ip: IpAddr, kind: NodeAddressKind) {
        if !self.addresses.iter().any(|address| address.ip == ip) {
            self.addresses.push(NodeAddress { ip, kind });
        }
    }
}

fn pod_cidrs(
    reader: &Reader<'_>,
    spec: Option<&core::NodeSpec>,
) -> Result<Vec<IpNet>, ObjectError> {
    let one = spec
        .and_then(|spec| spec.pod_cidr.as_ref())
        .map(|cidr| ("spec.podCIDR".into(), cidr));
    let many = spec
        .and_then(|spec| spec.pod_cidrs.as_deref())
        .unwrap_or_default();
    let many = many
        .iter()
        .enumerate()
        .map(|(index, cidr)| (format!("spec.podCIDRs[{index}]"), cidr));
    let mut cidrs = Vec::new();
    for (field, text) in one.into_iter().chain(many) {
        if text.is_empty() {
            continue;
        }
        let cidr: IpNet = text.parse().map_err(|_| {
            reader.error(field, format!("{text:?} is no range such as 10.42.1.0/24"))
        })?;
        if !cidrs.contains(&cidr) {
            cidrs.push(cidr);
        }
    }
    Ok(cidrs)
}

/// The first address after the network's own: where bridge CNIs put the node.
fn first_host(cidr: IpNet) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            Some(IpAddr::V4((u32::from(net.network()) + 1).into()))
        }
        IpNet::V6(net) if net.prefix_len() < 127 => {
            Some(IpAddr::V6((u128::from(net.network()) + 1).into()))
        }
        _ => None,
    }
}
