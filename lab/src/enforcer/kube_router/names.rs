//! Names as kube-router makes them (v2.6.3-k3s1): 16 characters of base32 of a SHA-256.

use ring::digest;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The first 16 characters of base32(sha256(text)).
pub(super) fn hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    // 16 characters of 5 bits are the first 80 bits.
    let bits = digest.as_ref()[..10]
        .iter()
        .fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
    (0..16)
        .rev()
        .map(|at| char::from(ALPHABET[(bits >> (at * 5) & 31) as usize]))
        .collect()
}

/// An IP family in names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// What stands before the names of sets.
    const fn set_prefix(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => "inet6:",
        }
    }
}

/// The pods a policy selects, as sources.
pub(super) fn target_source(namespace: &str, policy: &str, ip: Ip) -> String {
    let family = ip.name();
    format!(
        "{}KUBE-SRC-{}",
        ip.set_prefix(),
        hash(&format!("{namespace}{policy}{family}"))
    )
}

/// The pods a policy selects, as destinations.
pub(super) fn target_destination(namespace: &str, policy: &str, ip: Ip) -> String {
    let family = ip.name();
    format!(
        "{}KUBE-DST-{}",
        ip.set_prefix(),
        hash(&format!("{namespace}{policy}{family}"))
    )
}

/// Peers of one rule. `what` is kube-router's word for the kind: `pod`, `ipblock`, or a named port's
/// number in the rule followed by the family and `namedport`.
pub(super) fn peers(
    namespace: &str,
    policy: &str,
    ingress: bool,
    rule: usize,
    ip: Ip,
    what: &str,
) -> String {
    let (side, section) = if ingress {
        ("SRC", "ingressrule")
    } else {
        ("DST", "egressrule")
    };
    let family = ip.name();
    let id = hash(&format!("{namespace}{policy}{section}{rule}{family}{what}"));
    format!("{}KUBE-{side}-{id}", ip.set_prefix())
}

/// Pods that have a named port of one rule.
pub(super) fn named_port(
    namespace: &str,
    policy: &str,
    ingress: bool,
    rule: usize,
    port: usize,
    ip: Ip,
) -> String {
    let section = if ingress { "ingressrule" } else { "egressrule" };
    let family = ip.name();
    let id = hash(&format!(
        "{namespace}{policy}{section}{rule}{port}{family}namedport"
    ));
    format!("{}KUBE-DST-{id}", ip.set_prefix())
}

/// The comment of a rule that kube-router itself looks for again: its words, and a hash of chain and
/// arguments.
pub(super) fn comment(words: &str, chain: &str, args: &[&str]) -> String {
    format!("{words} - {}", hash(&format!("{chain}{}", args.concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_a_real_node() {
        let (namespace, policy) = ("vault", "vault-network-policy");
        let source = target_source(namespace, policy, Ip::V4);
        assert_eq!(source, "KUBE-SRC-VXKLKL743225IFU4");
        let ingress = peers(namespace, policy, true, 0, Ip::V4, "pod");
        assert_eq!(ingress, "KUBE-SRC-H4S2774NZQ2JU2FN");
        let egress = peers(namespace, policy, false, 0, Ip::V4, "pod");
        assert_eq!(egress, "KUBE-DST-ZWXHKKHXYGNCXF6S");
        let args = [
            "-m",
            "comment",
            "--comment",
            "kube-router netpol",
            "-j",
            "KUBE-ROUTER-INPUT",
        ];
        let jump = comment("kube-router netpol", "INPUT", &args);
        assert_eq!(jump, "kube-router netpol - 4IA2OSFRMVNDXBVV");
    }
}
