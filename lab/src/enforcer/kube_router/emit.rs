//! The filter table and the sets kube-router would install, as `iptables-save` and `ipset save` print
//! them. Shape: K3s's fork v2.6.3-k3s1; `golden/` holds what it really installed for the same objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::names::{self, Ip};
use super::policies;
use crate::policy::{PodFacts, Resolved};

/// What to enforce for one family.
pub(super) struct Input<'a> {
    pub(super) policies: &'a [Resolved],
    pub(super) pods: &'a [PodFacts],
    pub(super) ip: Ip,
    /// `--service-cluster-ip-range`.
    pub(super) services: &'a str,
    /// Start of the sync in nanoseconds since 1970; part of the chains' names, so that they change
    /// with every sync.
    pub(super) version: &'a str,
    /// Whether the node reaches its own pods whatever the policies say, as on a real node.
    pub(super) exempts_node: bool,
}

/// Chains with their rules in `iptables-save` syntax, and sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<String, Vec<String>>,
    pub(super) sets: BTreeMap<String, Set>,
}

/// A set: its type and its members.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) kind: &'static str,
    pub(super) members: Vec<String>,
}

/// "Allowed by a policy."
pub(super) const MARK_ALLOWED: &str = "0x10000/0x10000";
/// "Passed the pod's chain."
const MARK_ACCEPT: &str = "0x20000/0x20000";

const BUILTIN: [&str; 3] = ["INPUT", "FORWARD", "OUTPUT"];
/// Chains whose rules are the same in each sync.
const CONSTANT: [&str; 2] = ["KUBE-NWPLCY-COMMON", "KUBE-NWPLCY-DEFAULT"];

impl Ruleset {
    pub(super) fn new(input: &Input<'_>) -> Self {
        let mut rules = Self::default();
        rules.builtin_chains(input);
        rules.common_chain(input.ip);
        rules.add(
            "KUBE-NWPLCY-DEFAULT",
            format!(
                "-m comment --comment \"rule to mark traffic matching a network policy\" -j MARK --set-xmark {MARK_ALLOWED}"
            ),
        );
        for policy in input.policies {
            policies::chain(&mut rules, input, policy);
        }
        for pod in input.pods.iter().filter(|pod| pod.cable.is_some()) {
            if let Some(ip) = own(pod, input.ip) {
                rules.pod(input, pod, ip);
            }
        }
        rules
    }

    pub(super) fn add(&mut self, chain: &str, rule: String) {
        self.chains.entry(chain.to_owned()).or_default().push(rule);
    }

    fn builtin_chains(&mut self, input: &Input<'_>) {
        for builtin in BUILTIN {
            let chain = format!("KUBE-ROUTER-{builtin}");
            self.chains.entry(chain.clone()).or_default();
            let words = "kube-router netpol";
            let args = ["-m", "comment", "--comment", words, "-j", &chain];
            let comment = names::comment(words, builtin, &args);
            self.add(
                builtin,
                format!("-m comment --comment \"{comment}\" -j {chain}"),
            );
            self.add(
                builtin,
                format!(
                    "-m comment --comment \"KUBE-ROUTER rule to explicitly ACCEPT traffic that comply to network policies\" \
                     -m mark --mark {MARK_ACCEPT} -j ACCEPT"
                ),
            );
        }
        let chain = "KUBE-ROUTER-INPUT";
        let words = "allow traffic to primary/secondary cluster IP range";
        let args = [
            "-m",
            "comment",
            "--comment",
            words,
            "-d",
            input.services,
            "-j",
            "RETURN",
        ];
        let comment = names::comment(words, chain, &args);
        self.add(
            chain,
            format!(
                "-d {} -m comment --comment \"{comment}\" -j RETURN",
                input.services
            ),
        );
        for (protocol, shown) in [("tcp", "TCP"), ("udp", "UDP")] {
            let words = format!("allow LOCAL {shown} traffic to node ports");
            let local = ["-m", "addrtype", "--dst-type", "LOCAL"];
            let ports = ["-m", "multiport", "--dports", "30000:32767", "-j", "RETURN"];
            let mut args = vec!["-p", protocol, "-m", "comment", "--comment", &words];
            args.extend(local);
            args.extend(ports);
            let comment = names::comment(&words, chain, &args);
            self.add(
                chain,
                format!(
                    "-p {protocol} -m comment --comment \"{comment}\" {} {}",
                    local.join(" "),
                    ports.join(" ")
                ),
            );
        }
    }

    fn common_chain(&mut self, ip: Ip) {
        let chain = "KUBE-NWPLCY-COMMON";
        for (words, state, target) in [
            ("rule to drop invalid state for pod", "INVALID", "DROP"),
            (
                "rule for stateful firewall for pod",
                "RELATED,ESTABLISHED",
                "ACCEPT",
            ),
        ] {
            self.add(
                chain,
                format!(
                    "-m comment --comment \"\\\"{words}\\\"\" -m conntrack --ctstate {state} -j {target}"
                ),
            );
        }
        let types: &[(&str, u8)] = match ip {
            Ip::V4 => &[
                ("echo requests", 8),
                ("destination unreachable messages", 3),
                ("time exceeded messages", 11),
            ],
            Ip::V6 => &[
                ("echo requests", 128),
                ("destination unreachable messages", 1),
                ("time exceeded messages", 3),
                ("neighbor solicitation messages", 135),
                ("neighbor advertisement messages", 136),
                ("echo reply messages", 129),
            ],
        };
        let (protocol, module, option) = match ip {
            Ip::V4 => ("icmp", "icmp", "--icmp-type"),
            Ip::V6 => ("ipv6-icmp", "icmp6", "--icmpv6-type"),
        };
        for (words, number) in types {
            self.add(
                chain,
                format!(
                    "-p {protocol} -m comment --comment \"allow icmp {words}\" -m {module} {option} {number} -j ACCEPT"
                ),
            );
        }
    }

    /// The pod's chain, and the jumps to it.
    fn pod(&mut self, input: &Input<'_>, pod: &PodFacts, ip: IpAddr) {
        let (name, namespace) = (&pod.name, &pod.namespace);
        let chain = format!(
            "KUBE-POD-FW-{}",
            names::hash(&format!("{namespace}{name}{}", input.version))
        );
        let net = match ip {
            IpAddr::V4(_) => format!("{ip}/32"),
            IpAddr::V6(_) => format!("{ip}/128"),
        };
        let to = "rule to jump traffic destined to";
        let from = "rule to jump traffic from";
        for (hook, side, bridged, words) in [
            ("FORWARD", "-d", false, to),
            ("FORWARD", "-d", true, to),
            ("FORWARD", "-s", false, from),
            ("FORWARD", "-s", true, from),
            ("INPUT", "-s", false, from),
            ("OUTPUT", "-d", false, to),
            ("OUTPUT", "-s", false, from),
        ] {
            let bridged = if bridged {
                "-m physdev --physdev-is-bridged "
            } else {
                ""
            };
            self.add(
                &format!("KUBE-ROUTER-{hook}"),
                format!(
                    "{side} {net} {bridged}-m comment --comment \"{words} POD name:{name} \
                     namespace: {namespace} to chain {chain}\" -j {chain}"
                ),
            );
        }

        self.add(
            &chain,
            "-m comment --comment \"common bi-directional traffic policy rules\" -j KUBE-NWPLCY-COMMON"
                .to_owned(),
        );
        if input.exempts_node {
            self.add(
                &chain,
                format!(
                    "-d {net} -m comment --comment \"rule to permit the traffic traffic to pods when source is \
                     the pod\\'s local node\" -m addrtype --src-type LOCAL -j ACCEPT"
                ),
            );
        }
        let selecting: Vec<_> = input
            .policies
            .iter()
            .filter(|policy| {
                policy
                    .pods
                    .iter()
                    .any(|&at| input.pods[at].ips.contains(&ip))
            })
            .collect();
        for (side, isolated, direction) in [
            (
                "-s",
                selecting.iter().any(|policy| policy.egress.is_some()),
                "egress",
            ),
            (
                "-d",
                selecting.iter().any(|policy| policy.ingress.is_some()),
                "ingress",
            ),
        ] {
            if !isolated {
                self.add(
                    &chain,
                    format!(
                        "{side} {net} -m comment --comment \"run through default {direction} network \
                         policy chain\" -j KUBE-NWPLCY-DEFAULT"
                    ),
                );
            }
        }
        for policy in selecting {
            let only = match (&policy.ingress, &policy.egress) {
                (Some(_), None) => format!("-d {net} "),
                (None, Some(_)) => format!("-s {net} "),
                _ => String::new(),
            };
            let target = policies::chain_name(input, policy);
            self.add(
                &chain,
                format!(
                    "{only}-m comment --comment \"run through nw policy {}\" -j {target}",
                    policy.name
                ),
            );
        }
        let whose = format!("POD name:{name} namespace: {namespace}");
        let unmarked = format!("-m mark ! --mark {MARK_ALLOWED}");
        self.add(
            &chain,
            format!(
                "-m comment --comment \"rule to log dropped traffic {whose}\" {unmarked} \
                 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100"
            ),
        );
        let reply = match input.ip {
            Ip::V4 => "icmp-port-unreachable",
            Ip::V6 => "icmp6-port-unreachable",
        };
        self.add(
            &chain,
            format!(
                "-m comment --comment \"rule to REJECT traffic destined for {whose}\" {unmarked} \
                 -j REJECT --reject-with {reply}"
            ),
        );
        self.add(&chain, "-j MARK --set-xmark 0x0/0x10000".to_owned());
        self.add(
            &chain,
            format!(
                "-m comment --comment \"set mark to ACCEPT traffic that comply to network policies\" \
                 -j MARK --set-xmark {MARK_ACCEPT}"
            ),
        );
    }

    /// The whole filter table for `iptables-restore`, which puts it in force in one step.
    pub(super) fn restore(&self) -> String {
        let mut text = String::from("*filter\n");
        for builtin in BUILTIN {
            let _ = writeln!(text, ":{builtin} ACCEPT [0:0]");
        }
        let own = || self.chains.iter().filter(|(chain, _)| !is_builtin(chain));
        for (chain, _) in own() {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        let builtin = BUILTIN
            .iter()
            .filter_map(|chain| self.chains.get_key_value(*chain));
        write_rules(&mut text, builtin.chain(own()));
        text
    }

    /// The same where an older one is in force, for `iptables-restore --noflush`: jumps lead to the new
    /// chains of pods and policies in one step. The old ones stay, with what they have counted.
    pub(super) fn restore_over(&self) -> String {
        let mut text = String::from("*filter\n");
        let changed = || {
            self.chains
                .iter()
                .filter(|(chain, _)| !is_builtin(chain) && !CONSTANT.contains(&chain.as_str()))
        };
        for (chain, _) in changed() {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        write_rules(&mut text, changed());
        text
    }

    /// The chains of pods and policies, which are others in each sync.
    pub(super) fn versioned(&self) -> impl Iterator<Item = &String> {
        self.chains.keys().filter(|chain| {
            !is_builtin(chain)
                && !CONSTANT.contains(&chain.as_str())
                && !chain.starts_with("KUBE-ROUTER-")
        })
    }

    /// The sets for `ipset restore -exist`: made where missing, refilled where present.
    pub(super) fn restore_sets(&self, ip: Ip) -> String {
        let family = match ip {
            Ip::V4 => "inet",
            Ip::V6 => "inet6",
        };
        let mut text = String::new();
        for (name, set) in &self.sets {
            let _ = writeln!(text, "create {name} {} family {family} timeout 0", set.kind);
            let _ = writeln!(text, "flush {name}");
            for member in &set.members {
                let _ = writeln!(text, "add {name} {member}");
            }
        }
        text
    }
}

fn is_builtin(chain: &str) -> bool {
    BUILTIN.contains(&chain)
}

fn write_rules<'a>(text: &mut String, chains: impl Iterator<Item = (&'a String, &'a Vec<String>)>) {
    for (chain, rules) in chains {
        for rule in rules {
            let _ = writeln!(text, "-A {chain} {rule}");
        }
    }
    text.push_str("COMMIT\n");
}

/// The pod's address of that family.
pub(super) fn own(pod: &PodFacts, ip: Ip) -> Option<IpAddr> {
    pod.ips
        .iter()
        .copied()
        .find(|own| own.is_ipv4() == (ip == Ip::V4))
}
