//! Whose a chain or a program is, by the names that the projects give them.

use std::fmt;

use super::{Backend, Family};

/// Who enforces something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// kube-router, K3s's own among them.
    KubeRouter,
    /// kube-proxy and the kubelet.
    KubeProxy,
    /// Calico with iptables.
    CalicoIptables,
    /// Calico with nftables.
    CalicoNftables,
    /// Calico with eBPF.
    CalicoEbpf,
    /// Cilium.
    Cilium,
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
    /// Docker.
    Docker,
    /// Rules of this machine's that none of the others are known to make.
    HostFirewall,
}

/// By what rules are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sign {
    /// A chain of this very name.
    Chain(&'static str),
    /// Chains whose names begin so.
    Chains(&'static str),
    /// A table of this name.
    Table(&'static str),
    /// Nothing but where they are.
    Place {
        /// The chain.
        chain: String,
        /// Its table, with its family.
        table: String,
    },
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Chains(prefix) => write!(f, "chains {prefix}*"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Place { chain, table } => write!(f, "chain {chain} of table {table}"),
        }
    }
}

/// Chains by the beginning of their names, the longer ones first. As the projects make them:
/// <https://github.com/cloudnativelabs/kube-router/tree/v2.6.3/pkg/controllers/netpol>,
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/proxy/iptables/proxier.go>,
/// <https://github.com/projectcalico/calico/blob/v3.30.0/felix/rules/rule_defs.go>,
/// <https://github.com/cilium/cilium/blob/v1.18.0/pkg/datapath/iptables/iptables.go>.
const CHAINS: [(&str, Owner); 13] = [
    ("KUBE-POD-FW-", Owner::KubeRouter),
    ("KUBE-NWPLCY-", Owner::KubeRouter),
    ("KUBE-ROUTER-", Owner::KubeRouter),
    ("KUBE-FIREWALL", Owner::KubeProxy),
    ("KUBE-", Owner::KubeProxy),
    ("cali-", Owner::CalicoIptables),
    ("CILIUM_", Owner::Cilium),
    ("ufw-", Owner::Ufw),
    ("ufw6-", Owner::Ufw),
    ("INPUT_ZONES", Owner::Firewalld),
    ("FORWARD_", Owner::Firewalld),
    ("IN_public", Owner::Firewalld),
    ("DOCKER", Owner::Docker),
];

/// Tables of `nf_tables` that are one project's alone.
const TABLES: [(&str, Owner); 5] = [
    ("calico", Owner::CalicoNftables),
    ("firewalld", Owner::Firewalld),
    ("kube-proxy", Owner::KubeProxy),
    ("kube-router-filter-ipv4", Owner::KubeRouter),
    ("kube-router-filter-ipv6", Owner::KubeRouter),
];

impl Owner {
    /// As it is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KubeRouter => "kube-router",
            Self::KubeProxy => "kube-proxy",
            Self::CalicoIptables => "calico-iptables",
            Self::CalicoNftables => "calico-nftables",
            Self::CalicoEbpf => "calico-ebpf",
            Self::Cilium => "cilium",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Docker => "docker",
            Self::HostFirewall => "host-firewall",
        }
    }

    /// Whose a program at tc is: <https://github.com/projectcalico/calico/tree/v3.30.0/felix/bpf-gpl>,
    /// <https://github.com/cilium/cilium/tree/v1.18.0/bpf>.
    pub fn of_program(name: &str) -> Option<Self> {
        if name.starts_with("cali") {
            Some(Self::CalicoEbpf)
        } else if name.starts_with("cil_") {
            Some(Self::Cilium)
        } else {
            None
        }
    }

    /// Whose a chain is. `calls`: the chains that it jumps to; a chain of the kernel's own is whose it is that
    /// set its policy.
    pub fn of_chain<'a>(
        backend: Backend,
        family: Family,
        table: &str,
        chain: &str,
        calls: impl IntoIterator<Item = &'a str>,
    ) -> (Self, Sign) {
        if backend == Backend::Nft
            && let Some((name, owner)) = TABLES.iter().find(|(name, _)| *name == table)
        {
            return (*owner, Sign::Table(name));
        }
        let known = |chain: &str| CHAINS.iter().find(|(prefix, _)| chain.starts_with(prefix));
        if let Some((prefix, owner)) = known(chain) {
            let sign = if *prefix == "KUBE-FIREWALL" {
                Sign::Chain(prefix)
            } else {
                Sign::Chains(prefix)
            };
            return (*owner, sign);
        }
        // ufw has the policies of the kernel's chains drop what its rules do not let through.
        if calls.into_iter().any(|called| called.starts_with("ufw")) {
            return (Self::Ufw, Sign::Chains("ufw-"));
        }
        let family = match family {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Bridge => "bridge",
            Family::Netdev => "netdev",
        };
        let place = Sign::Place {
            chain: chain.to_owned(),
            table: format!("{family} {table}"),
        };
        (Self::HostFirewall, place)
    }

    /// Whether it marks packets so: kube-router has 0x10000 and 0x20000, Calico the upper half of the mark.
    /// Either may be set up otherwise, and others may use the same bits: a hint, never more.
    pub const fn marks(self, mark: u32) -> bool {
        match self {
            Self::KubeRouter => mark & 0x3_0000 != 0,
            Self::CalicoIptables | Self::CalicoNftables | Self::CalicoEbpf => {
                mark & 0xffff_0000 != 0
            }
            Self::KubeProxy => mark & 0xc000 != 0,
            _ => false,
        }
    }
}
