//! What a pod needs and its policies do not let through.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, Rule, rules};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::{NodeAddressKind, ObjectRef, Pod, Protocol, Workload};
use crate::policy::{Direction, PolicyRef};
use crate::verdict::SideVerdict;

/// The Service that answers for the cluster's names, whatever serves it.
const DNS: (&str, &str) = ("kube-system", "kube-dns");

pub(super) fn check(cluster: &Cluster, found: &mut Vec<Finding>) {
    let mut reach = Reach {
        cluster,
        found,
        told: BTreeSet::new(),
        api_server: cluster.api_server_endpoints(),
        dns: dns_endpoints(cluster),
    };
    let mut pods: Vec<&Pod> = cluster
        .pods()
        .filter(|pod| !pod.host_network && !pod.phase.finished())
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

fn dns_endpoints(cluster: &Cluster) -> BTreeSet<(IpAddr, u16)> {
    let id = ObjectRef::new(DNS.0, DNS.1);
    let Some(service) = cluster.service(&id) else {
        return BTreeSet::new();
    };
    service
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp && port.port == 53)
        .flat_map(|port| cluster.backends(&id, port))
        .collect()
}

struct Reach<'a> {
    cluster: &'a Cluster,
    found: &'a mut Vec<Finding>,
    /// A workload's mistake is told once, by its first pod.
    told: BTreeSet<(&'static str, String, Option<Workload>, String)>,
    api_server: BTreeSet<(IpAddr, u16)>,
    dns: BTreeSet<(IpAddr, u16)>,
}

impl Reach<'_> {
    /// Whether this direction of the flow is denied.
    fn is_denied(&self, flow: &Flow, direction: Direction) -> bool {
        let verdict = self.cluster.evaluate(flow);
        let side = match direction {
            Direction::Ingress => &verdict.ingress,
            Direction::Egress => &verdict.egress,
        };
        side.verdict == SideVerdict::Denied
    }

    fn culprit(&self, pod: &Pod, direction: Direction) -> Option<PolicyRef> {
        self.cluster
            .isolating(&pod.id.namespace, &pod.id.name, direction)
            .next()
            .cloned()
    }

    fn tell(
        &mut self,
        rule: &'static Rule,
        pod: &Pod,
        direction: Direction,
        detail: &str,
        message: String,
    ) {
        let Some(policy) = self.culprit(pod, direction) else {
            return;
        };
        let name = pod.workload.is_none().then(|| pod.id.name.clone());
        let key = (
            rule.id,
            format!("{}/{}", pod.id.namespace, name.unwrap_or_default()),
            pod.workload.clone(),
            detail.to_owned(),
        );
        if self.told.insert(key) {
            self.found.push(Finding {
                rule,
                policy,
                field: None,
                pod: Some(pod.id.clone()),
                message,
                fix: rule.fix.to_owned(),
            });
        }
    }

    fn probes(&mut self, pod: &Pod) {
        if self.culprit(pod, Direction::Ingress).is_none() {
            return;
        }
        let Some(node) = pod.node.as_deref().and_then(|name| self.cluster.node(name)) else {
            return;
        };
        // Which of a node's addresses its probes come from depends on the CNI: one that is let in is
        // taken to be it.
        let sources: Vec<IpAddr> = node
            .addresses
            .iter()
            .filter(|a| {
                matches!(
                    a.kind,
                    NodeAddressKind::Internal | NodeAddressKind::PodGateway
                )
            })
            .map(|a| a.ip)
            .filter(|ip| {
                pod.ips
                    .first()
                    .is_none_or(|own| own.is_ipv4() == ip.is_ipv4())
            })
            .collect();
        let ports: BTreeSet<u16> = pod.probes.iter().map(|probe| probe.port).collect();
        for port in ports {
            let is_open = sources.iter().any(|ip| {
                let flow = Flow::tcp(End::Ip(*ip), End::Pod(pod.id.clone()), port);
                !self.is_denied(&flow, Direction::Ingress)
            });
            if !is_open && !sources.is_empty() {
                let message = format!(
                    "the kubelet of node {} probes pod {} on port {port}/TCP, and no rule lets it in",
                    node.name, pod.id
                );
                let detail = port.to_string();
                self.tell(
                    &rules::PROBE_BLOCKED,
                    pod,
                    Direction::Ingress,
                    &detail,
                    message,
                );
            }
        }
    }

    /// The API server's own calls come from a control-plane node: one of its addresses that is let in is
    /// taken to be the one they come from.
    fn api_calls(&mut self, pod: &Pod) {
        if self.culprit(pod, Direction::Ingress).is_none() {
            return;
        }
        let masters: Vec<IpAddr> = self
            .cluster
            .nodes()
            .filter(|node| node.control_plane)
            .flat_map(|node| &node.addresses)
            .map(|address| address.ip)
            .collect();
        let called: BTreeSet<(u16, String)> = pod
            .ips
            .iter()
            .flat_map(|ip| pod.ports.iter().map(move |port| (*ip, port.port)))
            .flat_map(|(ip, port)| {
                let calls = self.cluster.api_calls_to(ip, port);
                calls.map(move |call| (port, format!("{} {}", call.kind.as_str(), call.object)))
            })
            .collect();
        for (port, object) in called {
            let is_open = masters.iter().any(|ip| {
                let flow = Flow::tcp(End::Ip(*ip), End::Pod(pod.id.clone()), port);
                !self.is_denied(&flow, Direction::Ingress)
            });
            if !is_open && !masters.is_empty() {
                let message = format!(
                    "the API server calls pod {} on port {port}/TCP for {object}, and no rule lets it in",
                    pod.id
                );
                self.tell(
                    &rules::WEBHOOK_BLOCKED,
                    pod,
                    Direction::Ingress,
                    &port.to_string(),
                    message,
                );
            }
        }
    }

    fn api_server(&mut self, pod: &Pod) {
        if !pod.mounts_api_token || self.culprit(pod, Direction::Egress).is_none() {
            return;
        }
        let denied = self.denied(pod, &self.api_server, Protocol::Tcp);
        let known = self.api_server.len();
        if known > 0 && denied == known {
            let message = format!(
                "pod {} mounts a service-account token, and no rule lets it reach the API server ({})",
                pod.id,
                list(&self.api_server)
            );
            self.tell(
                &rules::API_SERVER_BLOCKED,
                pod,
                Direction::Egress,
                "",
                message,
            );
        }
    }

    fn dns(&mut self, pod: &Pod) {
        let serves_dns = pod
            .ips
            .iter()
            .any(|ip| self.dns.iter().any(|(at, _)| at == ip));
        if serves_dns || self.dns.is_empty() || self.culprit(pod, Direction::Egress).is_none() {
            return;
        }
        let known = self.dns.len();
        let udp = self.denied(pod, &self.dns, Protocol::Udp) == known;
        let tcp = self.denied(pod, &self.dns, Protocol::Tcp) == known;
        let at = list(&self.dns);
        if udp {
            let message = format!("pod {} cannot reach the cluster's DNS ({at})", pod.id);
            self.tell(&rules::DNS_BLOCKED, pod, Direction::Egress, "", message);
        } else if tcp {
            let message = format!(
                "pod {} reaches the cluster's DNS ({at}) over UDP but not over TCP",
                pod.id
            );
            self.tell(&rules::DNS_UDP_ONLY, pod, Direction::Egress, "", message);
        }
    }

    /// How many of the endpoints the pod's egress does not let it reach.
    fn denied(&self, pod: &Pod, endpoints: &BTreeSet<(IpAddr, u16)>, protocol: Protocol) -> usize {
        endpoints
            .iter()
            .filter(|(ip, port)| {
                let flow = Flow {
                    protocol,
                    ..Flow::tcp(End::Pod(pod.id.clone()), End::Ip(*ip), *port)
                };
                self.is_denied(&flow, Direction::Egress)
            })
            .count()
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
                if self.is_denied(&flow, direction) {
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
                        direction,
                        &detail,
                        message,
                    );
                }
            }
        }
    }
}

fn list(endpoints: &BTreeSet<(IpAddr, u16)>) -> String {
    let all: Vec<String> = endpoints
        .iter()
        .map(|(ip, port)| std::net::SocketAddr::new(*ip, *port).to_string())
        .collect();
    all.join(", ")
}
