//! What a pod needs and its policies do not let through.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, Rule, behind, presumed, rules};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::{Node, NodeAddressKind, ObjectRef, Pod, Protocol, Workload};
use crate::policy::{Direction, PolicyRef};
use crate::verdict::SideVerdict;

/// The Service that answers for the cluster's names, whatever serves it.
const DNS: (&str, &str) = ("kube-system", "kube-dns");

/// `dns_pod` stands for the cluster's DNS where the objects do not say what it is.
pub(super) fn check(cluster: &Cluster, dns_pod: Option<&ObjectRef>, found: &mut Vec<Finding>) {
    let mut reach = Reach {
        cluster,
        found,
        told: BTreeSet::new(),
        api_server: cluster.api_server_endpoints(),
        dns: dns_endpoints(cluster),
        dns_pod,
        outsiders: if presumed::is_whole(cluster) {
            Vec::new()
        } else {
            presumed::outsiders(cluster)
        },
    };
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
    dns_pod: Option<&'a ObjectRef>,
    /// Whom rules may mean by an address, where the objects name no node; else empty.
    outsiders: Vec<IpAddr>,
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
        // Where it will run, its own node is let in.
        if pod.node.is_none() && self.cluster.profile().node_reaches_own_pods {
            return;
        }
        let nodes: Vec<&Node> = match pod.node.as_deref() {
            Some(name) => self.cluster.node(name).into_iter().collect(),
            None => self.cluster.nodes().collect(),
        };
        let ports: BTreeSet<u16> = pod.probes.iter().map(|probe| probe.port).collect();
        for port in ports {
            let prober = if self.outsiders.is_empty() {
                let closed = nodes
                    .iter()
                    .find(|node| self.is_closed_to(&probe_sources(node, pod), pod, port));
                closed.map(|node| format!("the kubelet of node {} probes", node.name))
            } else {
                self.is_closed_to(&self.outsiders, pod, port)
                    .then(|| "the kubelet probes".to_owned())
            };
            let Some(prober) = prober else { continue };
            let message = format!(
                "{prober} pod {} on port {port}/TCP, and no rule lets it in",
                pod.id
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

    /// Whether there are sources, and a TCP port of the pod is closed to every one of them.
    fn is_closed_to(&self, sources: &[IpAddr], pod: &Pod, port: u16) -> bool {
        !sources.is_empty()
            && sources.iter().all(|ip| {
                let flow = Flow::tcp(End::Ip(*ip), End::Pod(pod.id.clone()), port);
                self.is_denied(&flow, Direction::Ingress)
            })
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
            if self.is_closed_to(&masters, pod, port) {
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
        let presumed: BTreeSet<(IpAddr, u16)>;
        let (endpoints, at) = if self.api_server.is_empty() {
            let ports = presumed::API_SERVER_PORTS;
            let each = |ip: &IpAddr| ports.map(|port| (*ip, port));
            presumed = self.outsiders.iter().flat_map(each).collect();
            (&presumed, "an ipBlock, on port 6443 or 443".to_owned())
        } else {
            (&self.api_server, list(&self.api_server))
        };
        let known = endpoints.len();
        if known > 0 && self.denied(pod, endpoints, Protocol::Tcp) == known {
            let message = format!(
                "pod {} mounts a service-account token, and no rule lets it reach the API server ({at})",
                pod.id
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
        if serves_dns || self.culprit(pod, Direction::Egress).is_none() {
            return;
        }
        let closed = |protocol| match self.dns_pod {
            Some(dns) => {
                let flow = Flow {
                    protocol,
                    ..Flow::tcp(End::Pod(pod.id.clone()), End::Pod(dns.clone()), 53)
                };
                self.is_denied(&flow, Direction::Egress)
            }
            None => !self.dns.is_empty() && self.denied(pod, &self.dns, protocol) == self.dns.len(),
        };
        let (udp, tcp) = (closed(Protocol::Udp), closed(Protocol::Tcp));
        let at = match self.dns_pod {
            Some(_) => "k8s-app: kube-dns in kube-system".to_owned(),
            None => list(&self.dns),
        };
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

/// Which of a node's addresses its probes of `pod` come from depends on the CNI: any of these.
fn probe_sources(node: &Node, pod: &Pod) -> Vec<IpAddr> {
    let family = pod.ips.first().map(IpAddr::is_ipv4);
    node.addresses
        .iter()
        .filter(|a| {
            matches!(
                a.kind,
                NodeAddressKind::Internal | NodeAddressKind::PodGateway
            )
        })
        .map(|a| a.ip)
        .filter(|ip| family.is_none_or(|v4| v4 == ip.is_ipv4()))
        .collect()
}

fn list(endpoints: &BTreeSet<(IpAddr, u16)>) -> String {
    let all: Vec<String> = endpoints
        .iter()
        .map(|(ip, port)| std::net::SocketAddr::new(*ip, *port).to_string())
        .collect();
    all.join(", ")
}
