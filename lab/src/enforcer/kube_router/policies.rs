//! A policy's own chain and sets.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::emit::{Input, MARK_ALLOWED, Ruleset, Set, own};
use super::names::{self, Ip};
use crate::policy::{Peers, Port, PortNumber, Resolved, Rule};

/// The name of a policy's chain.
pub(super) fn chain_name(input: &Input<'_>, policy: &Resolved) -> String {
    let id = format!(
        "{}{}{}{}",
        policy.namespace,
        policy.name,
        input.version,
        input.ip.name()
    );
    format!("KUBE-NWPLCY-{}", names::hash(&id))
}

/// Writes the chain: each rule marks what it allows, the rest is logged.
pub(super) fn chain(rules: &mut Ruleset, input: &Input<'_>, policy: &Resolved) {
    let mut writer = Writer {
        chain: chain_name(input, policy),
        rules,
        input,
        policy,
    };
    for (ingress, list) in [(true, &policy.ingress), (false, &policy.egress)] {
        let Some(list) = list else { continue };
        writer.targets(ingress);
        for (at, rule) in list.iter().enumerate() {
            writer.rule(ingress, at, rule);
        }
    }
    let log = format!(
        "-m comment --comment \"rule to log dropped traffic\" -m limit --limit 10/min --limit-burst 10 \
         -m mark ! --mark {MARK_ALLOWED} -j NFLOG --nflog-prefix \"DROP by policy {}/{}\" --nflog-group 100",
        policy.namespace, policy.name
    );
    let chain = writer.chain;
    rules.add(&chain, log);
}

struct Writer<'a> {
    rules: &'a mut Ruleset,
    input: &'a Input<'a>,
    policy: &'a Resolved,
    chain: String,
}

/// Sources and destinations a rule's lines match, by set.
struct Ends<'a> {
    source: Option<&'a str>,
    destination: Option<&'a str>,
    comment: String,
}

impl Writer<'_> {
    fn target(&self, ingress: bool) -> String {
        let (namespace, name) = (&self.policy.namespace, &self.policy.name);
        if ingress {
            names::target_destination(namespace, name, self.input.ip)
        } else {
            names::target_source(namespace, name, self.input.ip)
        }
    }

    /// The set of the pods the policy selects.
    fn targets(&mut self, ingress: bool) {
        let members = self.addresses(&self.policy.pods);
        let name = self.target(ingress);
        self.set(name, "hash:ip", members);
    }

    fn rule(&mut self, ingress: bool, at: usize, rule: &Rule) {
        let (namespace, name) = (&self.policy.namespace, &self.policy.name);
        let target = self.target(ingress);
        let selected = |between: &str, colon: &str| {
            format!(
                "rule to ACCEPT traffic from {between} selected by policy name{colon} {name} namespace {namespace}"
            )
        };
        let ends = |peers: Option<&str>, comment: String| {
            // `target` is the policy's own side.
            if ingress {
                (peers.map(str::to_owned), Some(target.clone()), comment)
            } else {
                (Some(target.clone()), peers.map(str::to_owned), comment)
            }
        };
        let mut all = Vec::new();
        match &rule.peers {
            None => {
                let comment = if ingress {
                    selected("all sources to dest pods", ":")
                } else {
                    selected("source pods to all destinations", ":")
                };
                all.push((ends(None, comment), None));
            }
            Some(peers) => {
                if !peers.pods.is_empty() {
                    let set = names::peers(namespace, name, ingress, at, self.input.ip, "pod");
                    let members = self.addresses(&peers.pods);
                    let comment = selected("source pods to dest pods", "");
                    all.push((ends(Some(&set), comment), Some(&peers.pods)));
                    self.set(set, "hash:ip", members);
                }
                let blocks = block_members(peers, self.input.ip);
                if !blocks.is_empty() {
                    let set = names::peers(namespace, name, ingress, at, self.input.ip, "ipblock");
                    let comment = if ingress {
                        selected("specified ipBlocks to dest pods", ":")
                    } else {
                        selected("source pods to specified ipBlocks", ":")
                    };
                    all.push((ends(Some(&set), comment), None));
                    self.set(set, "hash:net", blocks);
                }
            }
        }
        for ((source, destination, comment), peer_pods) in all {
            let ends = Ends {
                source: source.as_deref(),
                destination: destination.as_deref(),
                comment,
            };
            // Whose port names count: the destination's.
            let named = if ingress {
                Some(&self.policy.pods)
            } else {
                peer_pods
            };
            self.ports(ingress, at, rule, &ends, named);
        }
    }

    fn ports(
        &mut self,
        ingress: bool,
        at: usize,
        rule: &Rule,
        ends: &Ends<'_>,
        named: Option<&Vec<usize>>,
    ) {
        let Some(ports) = &rule.ports else {
            self.accept(ends, ends.destination, "", "");
            return;
        };
        let mut named_sets = 0;
        for port in ports {
            let protocol = port.protocol.to_string().to_lowercase();
            let before = format!("-p {protocol} ");
            match &port.number {
                PortNumber::Any => self.accept(ends, ends.destination, &before, ""),
                PortNumber::Range(first, last) => {
                    let range = if first == last {
                        first.to_string()
                    } else {
                        format!("{first}:{last}")
                    };
                    let match_port = format!(" -m {protocol} --dport {range}");
                    self.accept(ends, ends.destination, &before, &match_port);
                }
                PortNumber::Named(name) => {
                    for (own, pods) in self.who_has(name, port, named) {
                        let (namespace, policy) = (&self.policy.namespace, &self.policy.name);
                        let ip = self.input.ip;
                        let set = names::named_port(namespace, policy, ingress, at, named_sets, ip);
                        named_sets += 1;
                        let members = self.addresses(&pods);
                        let match_port = format!(" -m {protocol} --dport {own}");
                        self.accept(ends, Some(&set), &before, &match_port);
                        self.set(set, "hash:ip", members);
                    }
                }
            }
        }
    }

    /// Pods that have a port of that name, by its number.
    fn who_has(
        &self,
        name: &str,
        port: &Port,
        pods: Option<&Vec<usize>>,
    ) -> Vec<(u16, Vec<usize>)> {
        let mut found: Vec<(u16, Vec<usize>)> = Vec::new();
        for &at in pods.into_iter().flatten() {
            for (own, number, protocol) in &self.input.pods[at].ports {
                if own == name && *protocol == port.protocol {
                    match found.iter_mut().find(|(known, _)| known == number) {
                        Some((_, pods)) => pods.push(at),
                        None => found.push((*number, vec![at])),
                    }
                }
            }
        }
        found
    }

    /// Two lines: mark, and leave the chain when marked.
    fn accept(&mut self, ends: &Ends<'_>, destination: Option<&str>, before: &str, ports: &str) {
        let mut matches = format!("{before}-m comment --comment \"{}\"", ends.comment);
        if let Some(set) = ends.source {
            let _ = write!(matches, " -m set --match-set {set} src");
        }
        if let Some(set) = destination {
            let _ = write!(matches, " -m set --match-set {set} dst");
        }
        matches += ports;
        let chain = self.chain.clone();
        self.rules.add(
            &chain,
            format!("{matches} -j MARK --set-xmark {MARK_ALLOWED}"),
        );
        self.rules.add(
            &chain,
            format!("{matches} -m mark --mark {MARK_ALLOWED} -j RETURN"),
        );
    }

    fn addresses(&self, pods: &[usize]) -> Vec<String> {
        let ips = pods
            .iter()
            .filter_map(|&at| own(&self.input.pods[at], self.input.ip));
        ips.map(|ip| format!("{ip} timeout 0")).collect()
    }

    fn set(&mut self, name: String, kind: &'static str, members: Vec<String>) {
        self.rules.sets.insert(name, Set { kind, members });
    }
}

/// The blocks of one family as members of a `hash:net`, exceptions as `nomatch`. Such a set has no
/// prefix of length zero, so "everything" goes in as its halves.
fn block_members(peers: &Peers, ip: Ip) -> Vec<String> {
    let mut members = Vec::new();
    let mut add = |net: &IpNet, suffix: &str| {
        if net.addr().is_ipv4() != (ip == Ip::V4) {
            return;
        }
        if net.prefix_len() == 0 {
            let halves = net.subnets(1).into_iter().flatten();
            members.extend(halves.map(|half| format!("{half} timeout 0{suffix}")));
        } else {
            members.push(format!("{net} timeout 0{suffix}"));
        }
    };
    for block in &peers.blocks {
        add(&block.cidr, "");
        for except in &block.except {
            add(&except.trunc(), " nomatch");
        }
    }
    members
}
