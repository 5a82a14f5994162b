//! Objects in the making: what is asked for, gathered by workload and direction.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::legs::Leg;
use super::peers::{self, PeerDraft};
use super::{Refusal, target};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::{ObjectRef, Protocol};
use crate::policy::Direction;
use crate::profile::Profile;
use crate::yaml;

/// A port and protocol.
pub(super) type PortDraft = (Protocol, u16);

/// Everything asked for so far.
#[derive(Default)]
pub(super) struct Drafts(BTreeMap<(String, Direction, String), Gathered>);

struct Gathered {
    selector: LabelSelector,
    subject: ObjectRef,
    base_name: String,
    wanted: BTreeMap<String, Wanted>,
    flows: Vec<Flow>,
    notes: BTreeSet<String>,
}

/// A peer, by its YAML, with the ports it is wanted for.
struct Wanted {
    peer: NetworkPolicyPeer,
    stands_for: End,
    ports: BTreeSet<PortDraft>,
    reasons: BTreeSet<String>,
}

/// An object to be proven.
pub(super) struct Draft {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) direction: Direction,
    pub(super) selector: LabelSelector,
    pub(super) subject: ObjectRef,
    pub(super) rules: Vec<RuleDraft>,
    pub(super) flows: Vec<Flow>,
    pub(super) notes: Vec<String>,
}

/// A rule to be proven: every peer is wanted for every port.
#[derive(Clone)]
pub(super) struct RuleDraft {
    pub(super) peers: Vec<(NetworkPolicyPeer, End)>,
    pub(super) ports: Vec<PortDraft>,
    pub(super) reasons: BTreeSet<String>,
}

impl Drafts {
    pub(super) fn add(
        &mut self,
        cluster: &Cluster,
        profile: Profile,
        leg: &Leg,
    ) -> Result<(), Refusal> {
        let pod = cluster.pod_at(&leg.subject).ok_or_else(|| {
            Refusal::Unknown(format!("pod {} is not in the cluster", leg.subject))
        })?;
        let selector = target::selector(cluster, pod, leg.direction)?;
        let peers = peers::of(cluster, profile, leg, &selector)?;
        let key = (
            leg.subject.namespace.clone(),
            leg.direction,
            yaml::flow(&selector),
        );
        let gathered = self.0.entry(key).or_insert_with(|| Gathered {
            selector,
            subject: leg.subject.clone(),
            base_name: pod
                .workload
                .as_ref()
                .map_or_else(|| pod.id.name.clone(), |w| w.name.clone()),
            wanted: BTreeMap::new(),
            flows: Vec::new(),
            notes: BTreeSet::new(),
        });
        gathered.notes.extend(peers.note);
        gathered.notes.extend(leg.exemption.map(|exemption| {
            format!(
                "by profile `{}` {}: if the flow was dropped all the same, something else may be at work too",
                profile.name,
                exemption.as_sentence()
            )
        }));
        if !gathered.flows.contains(&leg.flow) {
            gathered.flows.push(leg.flow.clone());
        }
        for PeerDraft {
            peer,
            stands_for,
            port,
        } in peers.list
        {
            let wanted = gathered
                .wanted
                .entry(yaml::flow(&peer))
                .or_insert_with(|| Wanted {
                    peer,
                    stands_for,
                    ports: BTreeSet::new(),
                    reasons: BTreeSet::new(),
                });
            wanted.ports.insert((leg.flow.protocol, port));
            wanted.reasons.insert(peers.reason.clone());
        }
        Ok(())
    }

    /// The objects, each under a name that is free in its namespace.
    pub(super) fn finish(self, cluster: &Cluster) -> Vec<Draft> {
        let mut taken: BTreeSet<(String, String)> = BTreeSet::new();
        let mut drafts = Vec::new();
        for ((namespace, direction, _), gathered) in self.0 {
            let base = format!("{}-allow-{}", gathered.base_name, direction.as_str());
            let mut name = base.clone();
            let mut count = 1;
            while cluster.policy(&namespace, &name).is_some()
                || !taken.insert((namespace.clone(), name.clone()))
            {
                count += 1;
                name = format!("{base}-{count}");
            }
            // Peers wanted for the very same ports share a rule: then every pair in it is wanted.
            let mut rules: BTreeMap<Vec<PortDraft>, RuleDraft> = BTreeMap::new();
            for wanted in gathered.wanted.into_values() {
                let ports: Vec<PortDraft> = wanted.ports.into_iter().collect();
                let rule = rules.entry(ports.clone()).or_insert_with(|| RuleDraft {
                    peers: Vec::new(),
                    ports,
                    reasons: BTreeSet::new(),
                });
                rule.peers.push((wanted.peer, wanted.stands_for));
                rule.reasons.extend(wanted.reasons);
            }
            drafts.push(Draft {
                namespace,
                name,
                direction,
                selector: gathered.selector,
                subject: gathered.subject,
                rules: rules.into_values().collect(),
                flows: gathered.flows,
                notes: gathered.notes.into_iter().collect(),
            });
        }
        drafts
    }
}

impl Draft {
    /// The API object with these rules.
    pub(super) fn object(&self, rules: &[RuleDraft]) -> NetworkPolicy {
        let peers = |rule: &RuleDraft| {
            let peers = rule.peers.iter().map(|(peer, _)| peer.clone());
            Some(peers.collect::<Vec<_>>())
        };
        let ports = |rule: &RuleDraft| {
            let ports = rule.ports.iter().map(|(protocol, port)| NetworkPolicyPort {
                protocol: Some(protocol.to_string()),
                port: Some(IntOrString::Int(i32::from(*port))),
                end_port: None,
            });
            Some(ports.collect::<Vec<_>>())
        };
        let mut spec = NetworkPolicySpec {
            pod_selector: Some(self.selector.clone()),
            // Explicit: an omitted list would isolate ingress as well.
            policy_types: Some(vec![self.direction.policy_type().to_owned()]),
            ..Default::default()
        };
        match self.direction {
            Direction::Ingress => {
                let rules = rules.iter().map(|rule| NetworkPolicyIngressRule {
                    from: peers(rule),
                    ports: ports(rule),
                });
                spec.ingress = Some(rules.collect());
            }
            Direction::Egress => {
                let rules = rules.iter().map(|rule| NetworkPolicyEgressRule {
                    to: peers(rule),
                    ports: ports(rule),
                });
                spec.egress = Some(rules.collect());
            }
        }
        NetworkPolicy {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..Default::default()
            },
            spec: Some(spec),
        }
    }

    /// The flow that stands for one peer and port in the proof.
    pub(super) fn flow_for(&self, other: &End, (protocol, port): PortDraft) -> Flow {
        let subject = End::Pod(self.subject.clone());
        let (from, to) = match self.direction {
            Direction::Ingress => (other.clone(), subject),
            Direction::Egress => (subject, other.clone()),
        };
        Flow {
            from,
            to,
            port: Some(port),
            protocol,
            icmp: None,
        }
    }
}
