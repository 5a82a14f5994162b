//! Whom a pod must let in: the kubelet's probes, and the API server where it serves it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Culprit, Reach, pod_speaks};
use crate::flow::{End, Flow};
use crate::lint::{behind, rules};
use crate::model::{Node, NodeAddressKind, Pod};
use crate::policy::Direction;
use crate::profile::Profile;

/// Who probes, and how that is closed to him.
struct Closed {
    prober: String,
    culprit: Culprit,
    /// The dataplane lets him in all the same.
    exempt: bool,
}

impl Reach<'_> {
    pub(super) fn probes(&mut self, pod: &Pod) {
        if !self.may_be_closed(pod, Direction::Ingress) {
            return;
        }
        let nodes: Vec<&Node> = match pod.node.as_deref() {
            Some(name) => self.cluster.node(name).into_iter().collect(),
            None => self.cluster.nodes().collect(),
        };
        let ports: BTreeSet<u16> = pod.probes.iter().map(|probe| probe.port).collect();
        for port in ports {
            let Some(closed) = self.probe(pod, port, &nodes) else {
                continue;
            };
            let prober = closed.prober;
            let (rule, message) = if closed.exempt {
                let message = format!(
                    "{prober} pod {} on port {port}/TCP, and no rule lets it in: dataplane `{}` does so by itself, others \
                     do not",
                    pod.id,
                    self.cluster.profile().name
                );
                (&rules::PROBE_EXEMPT, message)
            } else {
                let message = format!(
                    "{prober} pod {} on port {port}/TCP, and no rule lets it in",
                    pod.id
                );
                (&rules::PROBE_BLOCKED, message)
            };
            self.tell(rule, pod, closed.culprit, &port.to_string(), message);
        }
    }

    /// How a probe of the port is closed to the node, or the first of the nodes, that would make it.
    fn probe(&self, pod: &Pod, port: u16, nodes: &[&Node]) -> Option<Closed> {
        let profile = self.cluster.profile();
        let strict = profile.without_exemptions();
        // Where it will run, its own node is let in.
        let unplaced = profile.node_reaches_own_pods && pod.node.is_none();
        if !self.outsiders.is_empty() {
            return Some(Closed {
                culprit: self.closed_to(&self.outsiders, pod, port, strict)?,
                prober: "the kubelet probes".to_owned(),
                exempt: profile.node_reaches_own_pods,
            });
        }
        nodes.iter().find_map(|node| {
            let sources = probe_sources(node);
            let culprit = self.closed_to(&sources, pod, port, strict)?;
            let exempt = unplaced || self.closed_to(&sources, pod, port, profile).is_none();
            Some(Closed {
                prober: format!("the kubelet of node {} probes", node.name),
                culprit,
                exempt,
            })
        })
    }

    /// What closes a TCP port of the pod to every one of the sources.
    fn closed_to(
        &self,
        sources: &[IpAddr],
        pod: &Pod,
        port: u16,
        profile: Profile,
    ) -> Option<Culprit> {
        let mut first = None;
        for ip in sources.iter().filter(|ip| pod_speaks(pod, ip)) {
            let flow = Flow::tcp(End::Ip(*ip), End::Pod(pod.id.clone()), port);
            let culprit = self.closed_as(&flow, Direction::Ingress, profile)?;
            first.get_or_insert(culprit);
        }
        first
    }

    /// The API server's own calls come from a control-plane node: one of its addresses that is let in is
    /// taken to be the one they come from.
    pub(super) fn api_calls(&mut self, pod: &Pod) {
        if !self.may_be_closed(pod, Direction::Ingress) {
            return;
        }
        let masters: Vec<IpAddr> = self
            .cluster
            .nodes()
            .filter(|node| node.control_plane)
            .flat_map(|node| &node.addresses)
            .map(|address| address.ip)
            .chain(self.outsiders.iter().copied())
            .collect();
        let called: BTreeSet<(u16, String)> = pod
            .ips
            .iter()
            .flat_map(|ip| pod.ports.iter().map(move |port| (*ip, port.port)))
            .flat_map(|(ip, port)| {
                let calls = self.cluster.api_calls_to(ip, port);
                calls.map(move |call| (port, format!("{} {}", call.kind.as_str(), call.object)))
            })
            .chain(behind::api_calls(self.cluster, pod))
            .collect();
        for (port, object) in called {
            let profile = self.cluster.profile();
            if let Some(culprit) = self.closed_to(&masters, pod, port, profile) {
                let message = format!(
                    "the API server calls pod {} on port {port}/TCP for {object}, and no rule lets it in",
                    pod.id
                );
                let detail = port.to_string();
                self.tell(&rules::WEBHOOK_BLOCKED, pod, culprit, &detail, message);
            }
        }
    }
}

/// Which of a node's addresses its probes come from depends on the CNI: any of these.
fn probe_sources(node: &Node) -> Vec<IpAddr> {
    node.addresses
        .iter()
        .filter(|a| {
            matches!(
                a.kind,
                NodeAddressKind::Internal | NodeAddressKind::PodGateway
            )
        })
        .map(|a| a.ip)
        .collect()
}
