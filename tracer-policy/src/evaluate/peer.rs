//! Whether the other end is one of a rule's peers.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Judge;
use super::party::{Party, Who};
use crate::cluster::PodEntry;
use crate::intern::LabelSet;
use crate::policy::{Peer, Rule};
use crate::selector::Selector;
use crate::verdict::Failed;

/// Whether an end is one of a rule's peers.
#[derive(Clone, Copy)]
pub(super) enum PeerMatch {
    Yes,
    /// How near the nearest peer came (0 to 99), what of it failed, and which it was.
    No(u32, Failed, usize),
    /// A peer asks for an address and the end has none yet, or it is not known who the end is.
    Undecided,
}

pub(super) fn matches(
    judge: &Judge<'_>,
    rule: &Rule,
    subject: &PodEntry,
    other: &Party<'_>,
    other_ip: Option<IpAddr>,
) -> PeerMatch {
    let Some(peers) = &rule.peers else {
        return PeerMatch::Yes;
    };
    let mut best = (0, Failed::Peer, 0);
    let mut undecided = false;
    for (index, peer) in peers.iter().enumerate() {
        let found = match peer {
            Peer::Pods { namespaces, pods } => match &other.who {
                Who::Pod { entry, namespace } => {
                    let in_scope = match namespaces {
                        Some(selector) => selector.matches(&namespace.label_set),
                        None => entry.pod.id.namespace == subject.pod.id.namespace,
                    };
                    match_pod(in_scope, pods, &entry.labels)
                }
                Who::Node(_) | Who::External => PeerMatch::No(5, Failed::Peer, 0),
                Who::Untold => PeerMatch::Undecided,
            },
            Peer::Ip { cidr, except } => {
                let seen = match other.who {
                    Who::Pod { .. } => judge.profile.ipblock_matches_pods,
                    Who::Node(_) => judge.profile.ipblock_matches_nodes,
                    Who::External | Who::Untold => true,
                };
                match (seen, other_ip) {
                    (false, _) => PeerMatch::No(10, Failed::Peer, 0),
                    (true, Some(ip)) => match_ip(cidr, except, ip),
                    (true, None) => PeerMatch::Undecided,
                }
            }
        };
        match found {
            PeerMatch::Yes => return PeerMatch::Yes,
            PeerMatch::No(near, failed, _) if near > best.0 => best = (near, failed, index),
            PeerMatch::No(..) => {}
            PeerMatch::Undecided => undecided = true,
        }
    }
    if undecided {
        PeerMatch::Undecided
    } else {
        PeerMatch::No(best.0, best.1, best.2)
    }
}

fn match_pod(in_scope: bool, pods: &Selector, labels: &LabelSet) -> PeerMatch {
    let misses = u32::try_from(pods.misses(labels))
        .unwrap_or(u32::MAX)
        .min(9);
    match (in_scope, misses) {
        (true, 0) => PeerMatch::Yes,
        (false, 0) if pods.selects_all() => PeerMatch::No(50, Failed::Namespace, 0),
        (false, 0) => PeerMatch::No(80, Failed::Namespace, 0),
        (true, misses) => PeerMatch::No(60 - misses, Failed::Peer, 0),
        (false, misses) => PeerMatch::No(20 - misses, Failed::Peer, 0),
    }
}

fn match_ip(cidr: &IpNet, except: &[IpNet], ip: IpAddr) -> PeerMatch {
    if !cidr.contains(&ip) {
        let same_family = cidr.addr().is_ipv4() == ip.is_ipv4();
        return PeerMatch::No(if same_family { 30 } else { 8 }, Failed::Peer, 0);
    }
    if except.iter().any(|net| net.contains(&ip)) {
        PeerMatch::No(70, Failed::Peer, 0)
    } else {
        PeerMatch::Yes
    }
}
