//! One side of a flow: the policies that isolate a pod in one direction.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::party::{Party, Who};
use super::peer::{self, PeerMatch};
use super::port::{self, PortMatch};
use super::{Judge, Pair};
use crate::cluster::PodEntry;
use crate::model::Labels;
use crate::policy::{Direction, Policy, Rule};
use crate::verdict::{Exemption, Failed, NearestMiss, RuleRef, Side, SideVerdict};
use crate::yaml;

/// A side's verdict, and what it lacks where it is unknown.
pub(crate) struct Judged {
    pub(crate) side: Side,
    pub(crate) undecided: Option<String>,
}

impl Judged {
    pub(crate) const fn not_isolated() -> Self {
        Self {
            side: Side::not_isolated(),
            undecided: None,
        }
    }

    /// Lets through what no rule lets through.
    pub(super) fn exempt(&mut self, exemption: Exemption) {
        if matches!(
            self.side.verdict,
            SideVerdict::Denied | SideVerdict::Unknown
        ) {
            self.side.verdict = SideVerdict::Allowed;
            self.side.nearest_miss = None;
            self.side.denied_by = None;
            self.side.exemption = Some(exemption);
            self.undecided = None;
        }
    }
}

/// What kept a rule from being decided.
#[derive(Clone, Copy)]
pub(super) enum Undecided {
    NoPort,
    NoAddress,
}

struct Miss<'a> {
    score: u32,
    policy: &'a Policy,
    rule: Option<&'a Rule>,
    failed: Failed,
    item: usize,
}

/// What NetworkPolicies say.
pub(crate) fn namespaced(
    judge: &Judge<'_>,
    pair: &Pair<'_>,
    direction: Direction,
    subject: &PodEntry,
) -> Judged {
    let (other, other_ip) = match direction {
        Direction::Ingress => (pair.from, pair.from_ip),
        Direction::Egress => (pair.to, pair.to_ip),
    };
    let listed = subject.isolating(direction).iter().map(AsRef::as_ref);
    let overlaid = judge.overlay.iter().filter(|policy| {
        policy.id.namespace() == Some(&subject.pod.id.namespace)
            && policy.isolates(direction)
            && policy.selector.matches(&subject.labels)
    });
    let mut side = Side::not_isolated();
    side.isolating.reserve(subject.isolating(direction).len());
    let mut nearest: Option<Miss<'_>> = None;
    let mut undecided: Option<(Option<&Policy>, Undecided)> = None;
    let mut broken: Option<&Policy> = None;
    for policy in listed.chain(overlaid) {
        side.isolating.push(policy.id.clone());
        if policy.broken.is_some() {
            broken = broken.or(Some(policy));
            continue;
        }
        let rules = policy.rules(direction).unwrap_or_default();
        if rules.is_empty() && nearest.is_none() {
            nearest = Some(Miss {
                score: 0,
                policy,
                rule: None,
                failed: Failed::NoRules,
                item: 0,
            });
        }
        for rule in rules {
            let peer = peer::matches(judge, rule, subject, other, other_ip);
            let port = port::matches(rule.ports.as_deref(), pair);
            let (score, failed, item) = match (peer, port) {
                (PeerMatch::Yes, PortMatch::Yes) => {
                    side.allowed_by.push(RuleRef {
                        policy: policy.id.clone(),
                        rule: Arc::clone(&rule.path),
                    });
                    continue;
                }
                (PeerMatch::Yes, PortMatch::No(Failed::Port, item)) => (1000, Failed::Port, item),
                (PeerMatch::Yes, PortMatch::No(failed, item)) => (900, failed, item),
                (PeerMatch::No(near, failed, item), PortMatch::Yes) => (500 + near, failed, item),
                (PeerMatch::No(near, failed, item), PortMatch::No(..) | PortMatch::Undecided) => {
                    (100 + near, failed, item)
                }
                (PeerMatch::Undecided, PortMatch::No(failed, item)) => (100, failed, item),
                (PeerMatch::Yes | PeerMatch::Undecided, PortMatch::Undecided) => {
                    undecided = undecided.or(Some((Some(policy), Undecided::NoPort)));
                    continue;
                }
                (PeerMatch::Undecided, PortMatch::Yes) => {
                    undecided = undecided.or(Some((Some(policy), Undecided::NoAddress)));
                    continue;
                }
            };
            if nearest
                .as_ref()
                .is_none_or(|miss| score > miss.score || miss.rule.is_none())
            {
                nearest = Some(Miss {
                    score,
                    policy,
                    rule: Some(rule),
                    failed,
                    item,
                });
            }
        }
    }
    if side.isolating.is_empty() {
        return Judged {
            side,
            undecided: None,
        };
    }
    if !side.allowed_by.is_empty() {
        side.verdict = SideVerdict::Allowed;
        return Judged {
            side,
            undecided: None,
        };
    }
    side.nearest_miss = nearest.map(|miss| describe(&miss, pair, direction, other, other_ip));
    let undecided = if let Some(policy) = broken {
        let error = policy.broken.as_ref().map(ToString::to_string);
        error.map(|error| format!("what {} allows is not known: {error}", policy.id))
    } else {
        undecided.map(|(policy, what)| {
            let policy = policy.map(|p| p.id.to_string()).unwrap_or_default();
            match what {
                Undecided::NoPort => {
                    format!("the flow names no port, and policy {policy} asks for one")
                }
                Undecided::NoAddress => format!(
                    "{} has no address yet, and policy {policy} asks for one",
                    name_of(other)
                ),
            }
        })
    };
    side.verdict = if undecided.is_some() {
        SideVerdict::Unknown
    } else {
        SideVerdict::Denied
    };
    Judged { side, undecided }
}

fn describe(
    miss: &Miss<'_>,
    pair: &Pair<'_>,
    direction: Direction,
    other: &Party<'_>,
    other_ip: Option<IpAddr>,
) -> NearestMiss {
    let rule = miss.rule;
    let wanted = match (miss.failed, rule) {
        (Failed::Port | Failed::Protocol, Some(rule)) => Arc::clone(&rule.ports_text),
        (Failed::Peer | Failed::Namespace, Some(rule)) => Arc::clone(&rule.peers_text),
        _ => match direction {
            Direction::Ingress => "a rule in spec.ingress (there is none)".into(),
            Direction::Egress => "a rule in spec.egress (there is none)".into(),
        },
    };
    let got = match miss.failed {
        Failed::Port => match pair.port {
            Some(port) => format!("port {port}/{}", pair.protocol),
            None => pair.protocol.to_string(),
        },
        Failed::Protocol => match pair.port {
            Some(port) => format!("{} (port {port})", pair.protocol),
            None if pair.protocol.has_ports() => pair.protocol.to_string(),
            None => format!("{}, which no port list can match", pair.protocol),
        },
        Failed::Namespace => match &other.who {
            Who::Pod { entry, namespace } => {
                let mut text = format!("namespace {} with labels ", entry.pod.id.namespace);
                write_labels(&mut text, namespace.labels());
                text
            }
            Who::Node(_) | Who::External | Who::Untold => party_text(other, other_ip),
        },
        Failed::Peer | Failed::NoRules => party_text(other, other_ip),
    };
    NearestMiss {
        policy: miss.policy.id.clone(),
        rule: rule.map(|rule| Arc::clone(&rule.path)),
        failed: miss.failed,
        item: miss.item,
        wanted,
        got,
    }
}

fn name_of(party: &Party<'_>) -> String {
    let mut out = String::new();
    write_name(&mut out, party);
    out
}

fn write_name(out: &mut String, party: &Party<'_>) {
    let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.push_str(part));
    match &party.who {
        Who::Pod { entry, .. } => {
            push(&["pod ", &entry.pod.id.namespace, "/", &entry.pod.id.name]);
        }
        Who::Node(Some(node)) => push(&["node ", node]),
        Who::Node(None) => push(&["the node"]),
        Who::External | Who::Untold => push(&["the other end"]),
    }
}

fn party_text(party: &Party<'_>, ip: Option<IpAddr>) -> String {
    let mut text = String::with_capacity(192);
    match (&party.who, ip) {
        (Who::External, Some(ip)) => {
            let _ = write!(text, "{ip}, an address outside the cluster");
            return text;
        }
        _ => write_name(&mut text, party),
    }
    match (&party.who, ip) {
        (Who::Pod { entry, .. }, _) => {
            text.push_str(" with labels ");
            write_labels(&mut text, &entry.pod.labels);
        }
        (Who::Node(_), Some(ip)) => {
            let _ = write!(text, " ({ip}), an address no podSelector can match");
        }
        (Who::Node(_), None) => text.push_str(", which no podSelector can match"),
        (Who::External | Who::Untold, _) => {}
    }
    text
}

fn write_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, (key, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(&yaml::scalar(key));
        out.push_str(": ");
        out.push_str(&yaml::scalar(value));
    }
    out.push('}');
}
