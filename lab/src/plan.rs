//! Who has which address. The IPv4 ones are the incident's; each IPv6 one spells its IPv4 twin in a
//! ULA prefix, so that a reader sees at a glance who is meant.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::digest;
use tracer_policy::model::Protocol;

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6, a ULA.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The address of one family.
    pub const fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Both, IPv4 first.
    pub const fn both(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How pods are wired to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wiring {
    /// As K3s's flannel does it: a bridge `cni0` that has the pod network's first address, bridged
    /// traffic going through netfilter (`net.bridge.bridge-nf-call-iptables`).
    #[default]
    Bridge,
    /// As Calico does it: a route per pod, the node answering ARP for a link-local gateway. The node
    /// talks to its pods from its own address.
    Routed,
}

/// A pod of the plan.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// Node it runs on.
    pub node: &'static str,
    /// Addresses.
    pub addresses: Addresses,
    /// Labels.
    pub labels: &'static [(&'static str, &'static str)],
    /// Container.
    pub container: &'static str,
    /// Declared ports: name, number, protocol.
    pub ports: &'static [(&'static str, u16, &'static str)],
}

impl PodPlan {
    /// The node's end of the pod's cable: `veth` and 8 hex digits where bridged; where routed,
    /// Calico's own rule, `cali` and the start of sha1 of `namespace.name`.
    pub fn host_interface(&self, wiring: Wiring) -> String {
        let id = format!("{}.{}", self.namespace, self.name);
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, id.as_bytes());
        let hex = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        match wiring {
            Wiring::Bridge => format!("veth{}", &hex[..8]),
            Wiring::Routed => format!("cali{}", &hex[..11]),
        }
    }
}

const fn addresses(v4: [u8; 4], v6: [u16; 8]) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(v6[0], v6[1], v6[2], v6[3], v6[4], v6[5], v6[6], v6[7]),
    }
}

/// The master: the API server listens here on [`API_PORT`].
pub const MASTER: Addresses = addresses(
    [192, 168, 1, 100],
    [0xfd00, 0x192, 0x168, 1, 0, 0, 0, 0x100],
);
/// The node under test, `node-1`.
pub const NODE: Addresses = addresses([10, 10, 0, 11], [0xfd00, 0x10, 0x10, 0, 0, 0, 0, 0x11]);
/// The other node, `node-2`.
pub const OTHER_NODE: Addresses =
    addresses([10, 10, 0, 12], [0xfd00, 0x10, 0x10, 0, 0, 0, 0, 0x12]);
/// A host outside the cluster (RFC 5737 documentation range).
pub const REMOTE: Addresses = addresses(
    [198, 51, 100, 10],
    [0xfd00, 0x198, 0x51, 0x100, 0, 0, 0, 0x10],
);
/// The bridge `cni0` of `node-1`: first address of its pod network.
pub const POD_GATEWAY: Addresses = addresses([10, 42, 1, 1], [0xfd00, 0x10, 0x42, 1, 0, 0, 0, 1]);
/// First address of `node-2`'s pod network.
pub const OTHER_POD_GATEWAY: Addresses =
    addresses([10, 42, 2, 1], [0xfd00, 0x10, 0x42, 2, 0, 0, 0, 1]);
/// ClusterIP of `default/kubernetes`, port 443, which becomes [`MASTER`]:[`API_PORT`].
pub const KUBERNETES_SERVICE: Addresses =
    addresses([10, 43, 0, 1], [0xfd00, 0x10, 0x43, 0, 0, 0, 0, 1]);
/// ClusterIP of `kube-system/kube-dns`, port 53.
pub const DNS_SERVICE: Addresses =
    addresses([10, 43, 0, 10], [0xfd00, 0x10, 0x43, 0, 0, 0, 0, 0x10]);

/// Port of the API server on the master.
pub const API_PORT: u16 = 6443;
/// Port of Vault's API, and of its probes.
pub const VAULT_PORT: u16 = 8200;

/// Every pod.
pub const PODS: [PodPlan; 4] = [
    PodPlan {
        namespace: "vault",
        name: "vault-0",
        node: "node-1",
        addresses: addresses([10, 42, 1, 10], [0xfd00, 0x10, 0x42, 1, 0, 0, 0, 0x10]),
        labels: &[
            ("app.kubernetes.io/name", "vault"),
            ("apps.kubernetes.io/pod-index", "0"),
            ("statefulset.kubernetes.io/pod-name", "vault-0"),
        ],
        container: "vault",
        ports: VAULT_PORTS,
    },
    PodPlan {
        namespace: "vault",
        name: "vault-1",
        node: "node-1",
        addresses: addresses([10, 42, 1, 11], [0xfd00, 0x10, 0x42, 1, 0, 0, 0, 0x11]),
        labels: &[
            ("app.kubernetes.io/name", "vault"),
            ("apps.kubernetes.io/pod-index", "1"),
            ("statefulset.kubernetes.io/pod-name", "vault-1"),
        ],
        container: "vault",
        ports: VAULT_PORTS,
    },
    PodPlan {
        namespace: "kube-system",
        name: "coredns-6799fbcd5-x8mzq",
        node: "node-1",
        addresses: addresses([10, 42, 1, 12], [0xfd00, 0x10, 0x42, 1, 0, 0, 0, 0x12]),
        labels: &[("k8s-app", "kube-dns"), ("pod-template-hash", "6799fbcd5")],
        container: "coredns",
        ports: &[("dns", 53, "UDP"), ("dns-tcp", 53, "TCP")],
    },
    PodPlan {
        namespace: "default",
        name: "client",
        node: "node-2",
        addresses: addresses([10, 42, 2, 10], [0xfd00, 0x10, 0x42, 2, 0, 0, 0, 0x10]),
        labels: &[("app", "client")],
        container: "client",
        ports: &[],
    },
];

const VAULT_PORTS: &[(&str, u16, &str)] = &[
    ("https", VAULT_PORT, "TCP"),
    ("https-internal", 8201, "TCP"),
];

/// The API server by its own address.
pub const fn api_server(family: Family) -> SocketAddr {
    SocketAddr::new(MASTER.of(family), API_PORT)
}

/// The API server by its ClusterIP.
pub const fn kubernetes_service(family: Family) -> SocketAddr {
    SocketAddr::new(KUBERNETES_SERVICE.of(family), 443)
}

/// The cluster's DNS by its ClusterIP.
pub const fn dns_service(family: Family) -> SocketAddr {
    SocketAddr::new(DNS_SERVICE.of(family), 53)
}

/// A Service port and what it is translated to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    pub(crate) service: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: SocketAddr,
}

/// Every translation of the node's Services.
pub(crate) fn service_translations() -> Vec<Translation> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        all.push(Translation {
            service: kubernetes_service(family),
            protocol: Protocol::Tcp,
            endpoint: api_server(family),
        });
        for pod in PODS.iter().filter(|pod| pod.container == "coredns") {
            all.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| Translation {
                service: dns_service(family),
                protocol,
                endpoint: SocketAddr::new(pod.addresses.of(family), 53),
            }));
        }
    }
    all
}
