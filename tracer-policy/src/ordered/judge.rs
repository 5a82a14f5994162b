//! What ordered policies and NetworkPolicies say together of one side of a flow.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Action, Matcher, OrderedPolicy, OrderedRule, Peer, Tier};
use crate::cluster::PodEntry;
use crate::evaluate::{Judge, Judged, Pair, Party, PortMatch, Who, match_ports, namespaced};
use crate::intern::LabelSet;
use crate::policy::{Direction, PolicyRef};
use crate::verdict::{RuleRef, Side, SideVerdict};

/// Whether a rule is about a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// It asks for something the flow does not say.
    Undecided,
}

/// What a policy says of a flow.
enum Said {
    /// It is not about this pod, or not about this direction.
    Nothing,
    /// It is, and none of its rules matches.
    NoMatch,
    Decided(Action, RuleRef),
    Unknown(String),
}

/// Asks tier after tier; the first that decides, decides.
pub(crate) fn judge(
    judge: &Judge<'_>,
    pair: &Pair<'_>,
    direction: Direction,
    subject: &PodEntry,
) -> Judged {
    let policies = judge.cluster.ordered();
    let mut tiers: Vec<&Tier> = policies.iter().map(|policy| &policy.tier).collect();
    let default = Tier::default();
    tiers.push(&default);
    tiers.sort_by(|a, b| a.cmp(b));
    tiers.dedup();
    'tiers: for tier in tiers {
        let mut applied: Vec<PolicyRef> = Vec::new();
        let mut namespaces: Option<Judged> = None;
        let members = policies.iter().filter(|policy| policy.tier == *tier);
        let is_default = *tier == default;
        for policy in members {
            if is_default && namespaces.is_none() && !policy.is_before_network_policies() {
                let judged = namespaced(judge, pair, direction, subject);
                if decides(&judged) {
                    return judged;
                }
                namespaces = Some(judged);
            }
            match ask(policy, judge, pair, direction) {
                Said::Nothing => {}
                Said::NoMatch => applied.push(policy.id.clone()),
                Said::Decided(action, rule) => {
                    let open = policies
                        .iter()
                        .filter(|other| policy.ties_with(other))
                        .find(|other| {
                            let said = ask(other, judge, pair, direction);
                            matches!(said, Said::Decided(other, _) if other != action)
                        });
                    if let Some(other) = open {
                        return Judged {
                            side: Side::unknown(),
                            undecided: Some(format!(
                                "{} and {} have the same priority and decide differently: the API leaves \
                                 open which is asked first",
                                policy.id, other.id
                            )),
                        };
                    }
                    if action == Action::Pass {
                        continue 'tiers;
                    }
                    return decided(action, rule);
                }
                Said::Unknown(reason) => {
                    return Judged {
                        side: Side::unknown(),
                        undecided: Some(reason),
                    };
                }
            }
        }
        if is_default {
            let mut judged =
                namespaces.unwrap_or_else(|| namespaced(judge, pair, direction, subject));
            if judged.side.verdict != SideVerdict::NotIsolated {
                judged.side.isolating.extend(applied);
                return judged;
            }
        }
        if tier.denies_rest && !applied.is_empty() {
            let mut side = Side::not_isolated();
            side.verdict = SideVerdict::Denied;
            side.isolating = applied;
            return Judged {
                side,
                undecided: None,
            };
        }
    }
    Judged::not_isolated()
}

/// Whether NetworkPolicies leave nothing to those after them: what they merely do not allow, others may.
fn decides(judged: &Judged) -> bool {
    matches!(
        judged.side.verdict,
        SideVerdict::Allowed | SideVerdict::Unknown
    )
}

fn decided(action: Action, rule: RuleRef) -> Judged {
    let mut side = Side::not_isolated();
    match action {
        Action::Deny => {
            side.verdict = SideVerdict::Denied;
            side.denied_by = Some(rule);
        }
        Action::Allow | Action::Pass => {
            side.verdict = SideVerdict::Allowed;
            side.allowed_by.push(rule);
        }
    }
    Judged {
        side,
        undecided: None,
    }
}

fn ask(policy: &OrderedPolicy, judge: &Judge<'_>, pair: &Pair<'_>, direction: Direction) -> Said {
    let (own, other, other_ip) = match direction {
        Direction::Ingress => (pair.to, pair.from, pair.from_ip),
        Direction::Egress => (pair.from, pair.to, pair.to_ip),
    };
    let (true, Some(rules)) = (policy.is_about(&own.who), policy.rules(direction)) else {
        return Said::Nothing;
    };
    if let Some(error) = &policy.broken {
        return Said::Unknown(format!("what {} decides is not known: {error}", policy.id));
    }
    for rule in rules {
        if let Matcher::NotKnown(error) = &rule.matcher {
            return Said::Unknown(format!("what {} decides is not known: {error}", policy.id));
        }
        match matches(rule, judge, pair, other, other_ip) {
            Match::No => {}
            Match::Yes => {
                return Said::Decided(
                    rule.action,
                    RuleRef {
                        policy: policy.id.clone(),
                        rule: Arc::clone(&rule.path),
                    },
                );
            }
            Match::Undecided => {
                return Said::Unknown(format!(
                    "{} {} asks for a port or an address that the flow does not name",
                    policy.id, rule.path
                ));
            }
        }
    }
    Said::NoMatch
}

fn matches(
    rule: &OrderedRule,
    judge: &Judge<'_>,
    pair: &Pair<'_>,
    other: &Party<'_>,
    other_ip: Option<IpAddr>,
) -> Match {
    let (peers, ports) = match &rule.matcher {
        Matcher::Peers { peers, ports } => (peers, ports),
        Matcher::NotKnown(_) => return Match::Undecided,
        Matcher::Calico(criteria) => {
            return match criteria.hold(judge.cluster, pair) {
                Some(true) => Match::Yes,
                Some(false) => Match::No,
                None => Match::Undecided,
            };
        }
    };
    let mut peer = Match::No;
    for own in peers {
        match is_peer(own, judge, other, other_ip) {
            Match::Yes => {
                peer = Match::Yes;
                break;
            }
            Match::Undecided => peer = Match::Undecided,
            Match::No => {}
        }
    }
    let port = match match_ports(ports.as_deref(), pair) {
        PortMatch::Yes => Match::Yes,
        PortMatch::No(..) => Match::No,
        PortMatch::Undecided => Match::Undecided,
    };
    match (peer, port) {
        (Match::No, _) | (_, Match::No) => Match::No,
        (Match::Yes, Match::Yes) => Match::Yes,
        _ => Match::Undecided,
    }
}

fn is_peer(peer: &Peer, judge: &Judge<'_>, other: &Party<'_>, other_ip: Option<IpAddr>) -> Match {
    let yes = |is| if is { Match::Yes } else { Match::No };
    match (peer, &other.who) {
        (Peer::Pods { namespaces, pods }, Who::Pod { entry, namespace }) => {
            yes(namespaces.matches(&namespace.label_set) && pods.matches(&entry.labels))
        }
        (Peer::Nodes(selector), Who::Node(name)) => {
            match name.and_then(|name| judge.cluster.node(name)) {
                Some(node) => {
                    let labels = LabelSet::new(&node.labels, &mut judge.cluster.interner().known());
                    yes(selector.matches(&labels))
                }
                // Its labels are not known.
                None if selector.selects_all() => Match::Yes,
                None => Match::Undecided,
            }
        }
        (Peer::Pods { .. }, Who::Node(_) | Who::External)
        | (Peer::Nodes(_), Who::Pod { .. } | Who::External) => Match::No,
        (_, Who::Untold) => Match::Undecided,
        (Peer::Networks(networks), _) => match other_ip {
            Some(ip) => yes(networks.iter().any(|net| net.contains(&ip))),
            None => Match::Undecided,
        },
    }
}
