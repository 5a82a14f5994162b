//! Proof: allowed with it, denied without each part of it, and what else comes with it.

use std::collections::BTreeSet;

use super::draft::{Draft, RuleDraft};
use super::legs::side;
use super::{NewlyAllowed, Refusal, Suggestion};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::{Pod, Protocol};
use crate::policy::{Direction, Policy};
use crate::profile::Profile;
use crate::verdict::SideVerdict;

type Unproven = (Vec<Flow>, Refusal);

/// Proves a draft, leaving out what turns out not to be needed.
pub(super) fn prove(
    cluster: &Cluster,
    profile: Profile,
    draft: Draft,
) -> Result<Suggestion, Unproven> {
    let proof = Proof {
        cluster,
        profile,
        draft: &draft,
    };
    let fail = |why: String| (draft.flows.clone(), Refusal::Unproven(why));
    let rules = proof.without_the_needless().map_err(&fail)?;
    let policy = draft.object(&rules);
    let compiled = proof.compile(&rules).map_err(&fail)?;
    proof.guard(&compiled).map_err(&fail)?;
    for flow in &draft.flows {
        if !proof.passes(flow, std::slice::from_ref(&compiled)) {
            return Err(fail(format!("{flow} would still be denied")));
        }
    }
    let newly_allowed = proof.newly_allowed(&compiled, &rules);
    Ok(Suggestion {
        policy,
        direction: draft.direction,
        newly_allowed,
        reasons: rules
            .iter()
            .map(|rule| rule.reasons.iter().cloned().collect::<Vec<_>>().join("; "))
            .collect(),
        flows: draft.flows,
        notes: draft.notes,
    })
}

struct Proof<'a> {
    cluster: &'a Cluster,
    profile: Profile,
    draft: &'a Draft,
}

impl Proof<'_> {
    fn compile(&self, rules: &[RuleDraft]) -> Result<Policy, String> {
        self.cluster
            .compile(&self.draft.object(rules))
            .map_err(|error| error.to_string())
    }

    /// Whether the draft's direction lets a flow through, with `overlay` applied as well.
    fn passes(&self, flow: &Flow, overlay: &[Policy]) -> bool {
        let verdict = self.cluster.evaluate_with(flow, self.profile, overlay);
        matches!(
            side(&verdict, self.draft.direction).verdict,
            SideVerdict::Allowed | SideVerdict::NotIsolated
        )
    }

    /// The rules, without each peer and port whose absence denies nothing.
    fn without_the_needless(&self) -> Result<Vec<RuleDraft>, String> {
        let mut rules = self.draft.rules.clone();
        let mut rule = 0;
        while rule < rules.len() {
            let mut peer = 0;
            while peer < rules[rule].peers.len() {
                let end = rules[rule].peers[peer].1.clone();
                let flows: Vec<Flow> = rules[rule]
                    .ports
                    .iter()
                    .map(|port| self.draft.flow_for(&end, *port))
                    .collect();
                let mut without = rules.clone();
                without[rule].peers.remove(peer);
                if self.is_needed(&without, &flows)? {
                    peer += 1;
                } else {
                    rules = without;
                }
            }
            let mut port = 0;
            while port < rules[rule].ports.len() {
                let wanted = rules[rule].ports[port];
                let flows: Vec<Flow> = rules[rule]
                    .peers
                    .iter()
                    .map(|(_, end)| self.draft.flow_for(end, wanted))
                    .collect();
                let mut without = rules.clone();
                without[rule].ports.remove(port);
                if self.is_needed(&without, &flows)? {
                    port += 1;
                } else {
                    rules = without;
                }
            }
            rule += 1;
        }
        rules.retain(|rule| !rule.peers.is_empty() && !rule.ports.is_empty());
        Ok(rules)
    }

    /// Whether any of `flows` is denied with the rules that are left.
    fn is_needed(&self, without: &[RuleDraft], flows: &[Flow]) -> Result<bool, String> {
        // An empty list means "any": a rule that lost its last peer or port goes altogether.
        let left: Vec<RuleDraft> = without
            .iter()
            .filter(|rule| !rule.peers.is_empty() && !rule.ports.is_empty())
            .cloned()
            .collect();
        let overlay = self.compile(&left)?;
        Ok(flows
            .iter()
            .any(|flow| !self.passes(flow, std::slice::from_ref(&overlay))))
    }

    /// The suggestion must not isolate a pod that is not isolated yet.
    fn guard(&self, compiled: &Policy) -> Result<(), String> {
        for pod in self.selected(compiled) {
            let isolated = self
                .cluster
                .isolating(&pod.id.namespace, &pod.id.name, self.draft.direction)
                .next()
                .is_some();
            if !isolated {
                return Err(format!(
                    "it would isolate pod {}, which no policy isolates yet",
                    pod.id
                ));
            }
        }
        Ok(())
    }

    /// The pods a compiled policy selects and that policies apply to.
    fn selected(&self, compiled: &Policy) -> impl Iterator<Item = &Pod> {
        self.cluster
            .pods_in(&self.draft.namespace)
            .filter(|pod| !pod.host_network && !pod.phase.finished())
            .filter(|pod| self.cluster.selects(compiled, pod))
    }

    /// Every (peer, pod, port) that is denied now and would not be any more.
    fn newly_allowed(&self, compiled: &Policy, rules: &[RuleDraft]) -> Vec<NewlyAllowed> {
        let overlay = std::slice::from_ref(compiled);
        let mut found = BTreeSet::new();
        for rule in rules {
            let peers: Vec<End> = rule
                .peers
                .iter()
                .flat_map(|(peer, end)| match &peer.pod_selector {
                    Some(selector) => {
                        let namespace = peer
                            .namespace_selector
                            .iter()
                            .flat_map(|s| s.match_labels.iter().flatten())
                            .map(|(_, name)| name.clone())
                            .next()
                            .unwrap_or_default();
                        let labels = selector.match_labels.clone().unwrap_or_default();
                        self.cluster
                            .pods_with_labels(&namespace, &labels)
                            .filter(|pod| !pod.host_network && !pod.phase.finished())
                            .map(|pod| End::Pod(pod.id.clone()))
                            .collect()
                    }
                    None => vec![end.clone()],
                })
                .collect();
            for pod in self.selected(compiled) {
                for peer in &peers {
                    for (protocol, port) in &rule.ports {
                        let flow = flow(self.draft.direction, pod, peer, *protocol, *port);
                        if !self.passes(&flow, &[]) && self.passes(&flow, overlay) {
                            found.insert(NewlyAllowed {
                                pod: pod.id.clone(),
                                peer: peer.to_string(),
                                port: *port,
                                protocol: *protocol,
                            });
                        }
                    }
                }
            }
        }
        found.into_iter().collect()
    }
}

fn flow(direction: Direction, pod: &Pod, peer: &End, protocol: Protocol, port: u16) -> Flow {
    let pod = End::Pod(pod.id.clone());
    let (from, to) = match direction {
        Direction::Ingress => (peer.clone(), pod),
        Direction::Egress => (pod, peer.clone()),
    };
    Flow {
        from,
        to,
        port: Some(port),
        protocol,
        icmp: None,
    }
}
