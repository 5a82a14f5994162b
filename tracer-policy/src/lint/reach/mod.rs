//! What a pod needs and its policies do not let through.

mod inbound;
mod outbound;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, Rule, presumed, rules};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::{ObjectRef, Pod, Protocol, Workload};
use crate::policy::{Direction, PolicyRef};
use crate::profile::Profile;
use crate::verdict::{RuleRef, Side, SideVerdict};

/// `dns_pod` stands for the cluster's DNS where the objects do not say what it is.
pub(super) fn check(cluster: &Cluster, dns_pod: Option<&ObjectRef>, found: &mut Vec<Finding>) {
    let mut reach = Reach::new(cluster, dns_pod, found);
    let mut pods: Vec<&Pod> = cluster
        .pods()
        .filter(|pod| !pod.host_network && !pod.phase.finished() && Some(&pod.id) != dns_pod)
        .collect();
    pods.sort_by(|a, b| a.id.cmp(&b.id));
    for pod in pods {
        reach.api_calls(pod);
        reach.probes(pod);
        reach.api_server(pod);
        reach.dns(pod);
        reach.stateful_set(pod);
    }
}

pub(super) struct Reach<'a> {
    cluster: &'a Cluster,
    found: &'a mut Vec<Finding>,
    /// A workload's mistake is told once, by its first pod.
    told: BTreeSet<(&'static str, String, Option<Workload>, String)>,
    api_server: BTreeSet<(IpAddr, u16)>,
    dns: BTreeSet<(IpAddr, u16)>,
    dns_pod: Option<&'a ObjectRef>,
    /// Whom rules may mean by an address, where the objects name no node; else empty.
    outsiders: Vec<IpAddr>,
}

/// What denies a flow: the rule that says so, or the first of the policies that merely do not allow it.
#[derive(Clone)]
pub(super) struct Culprit {
    policy: PolicyRef,
    rule: Option<RuleRef>,
}

impl Culprit {
    fn of(side: &Side) -> Option<Self> {
        if side.verdict != SideVerdict::Denied {
            return None;
        }
        let rule = side.denied_by.clone();
        let policy = match &rule {
            Some(rule) => rule.policy.clone(),
            None => side.isolating.first()?.clone(),
        };
        Some(Self { policy, rule })
    }
}

impl<'a> Reach<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        dns_pod: Option<&'a ObjectRef>,
        found: &'a mut Vec<Finding>,
    ) -> Self {
        Self {
            cluster,
            found,
            told: BTreeSet::new(),
            api_server: cluster.api_server_endpoints(),
            dns: outbound::dns_endpoints(cluster),
            dns_pod,
            outsiders: if presumed::is_whole(cluster) {
                Vec::new()
            } else {
                presumed::outsiders(cluster)
            },
        }
    }

    /// What denies this direction of the flow.
    fn closed(&self, flow: &Flow, direction: Direction) -> Option<Culprit> {
        self.closed_as(flow, direction, self.cluster.profile())
    }

    fn closed_as(&self, flow: &Flow, direction: Direction, profile: Profile) -> Option<Culprit> {
        let verdict = self.cluster.evaluate_as(flow, profile);
        Culprit::of(match direction {
            Direction::Ingress => &verdict.ingress,
            Direction::Egress => &verdict.egress,
        })
    }

    /// Whether there is any policy that may close this direction of the pod.
    fn may_be_closed(&self, pod: &Pod, direction: Direction) -> bool {
        let id = &pod.id;
        let mut isolating = self.cluster.isolating(&id.namespace, &id.name, direction);
        isolating.next().is_some() || self.cluster.ordered_policies().next().is_some()
    }

    fn tell(
        &mut self,
        rule: &'static Rule,
        pod: &Pod,
        culprit: Culprit,
        detail: &str,
        message: String,
    ) {
        let name = pod.workload.is_none().then(|| pod.id.name.clone());
        let key = (
            rule.id,
            format!("{}/{}", pod.id.namespace, name.unwrap_or_default()),
            pod.workload.clone(),
            detail.to_owned(),
        );
        if !self.told.insert(key) {
            return;
        }
        let fix = match &culprit.rule {
            None => rule.fix.to_owned(),
            Some(denies) if self.cluster.overrules_network_policies(denies) => {
                "no NetworkPolicy overrides that: change the rule, or allow this by one ahead of it"
                    .to_owned()
            }
            Some(_) => {
                "change the rule, or allow this by a NetworkPolicy with all else that the pod needs"
                    .to_owned()
            }
        };
        self.found.push(Finding {
            rule,
            message: match &culprit.rule {
                None => message,
                Some(_) => format!("{message}: the rule denies it"),
            },
            policy: culprit.policy,
            field: culprit.rule.map(|rule| rule.rule.to_string()),
            pod: Some(pod.id.clone()),
            fix,
        });
    }

    fn stateful_set(&mut self, pod: &Pod) {
        let Some(workload) = pod.workload.as_ref().filter(|w| w.kind == "StatefulSet") else {
            return;
        };
        let Some(sibling) = self
            .cluster
            .pods_in(&pod.id.namespace)
            .find(|other| other.workload.as_ref() == Some(workload) && other.id != pod.id)
        else {
            return;
        };
        for port in sibling.ports.iter().filter(|p| p.protocol == Protocol::Tcp) {
            let flow = Flow::tcp(
                End::Pod(pod.id.clone()),
                End::Pod(sibling.id.clone()),
                port.port,
            );
            for (direction, whose) in [(Direction::Egress, pod), (Direction::Ingress, sibling)] {
                let Some(culprit) = self.closed(&flow, direction) else {
                    continue;
                };
                let message = format!(
                    "pods {} and {} of StatefulSet {} cannot reach each other on port {}/TCP: {} is closed",
                    pod.id,
                    sibling.id,
                    workload.name,
                    port.port,
                    direction.as_str()
                );
                let detail = format!("{} {}", port.port, direction.as_str());
                self.tell(
                    &rules::STATEFUL_SET_CLOSED,
                    whose,
                    culprit,
                    &detail,
                    message,
                );
            }
        }
    }
}

/// Whether the pod has an address of that family, as far as it has any yet.
fn pod_speaks(pod: &Pod, ip: &IpAddr) -> bool {
    pod.ips.is_empty() || pod.ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4())
}
