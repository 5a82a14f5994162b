//! Whom a pod must reach: the API server, and the cluster's DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::{Culprit, Reach, pod_speaks};
use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::lint::{presumed, rules};
use crate::model::{ObjectRef, Pod, Protocol};
use crate::policy::Direction;

/// The Service that answers for the cluster's names, whatever serves it.
const DNS: (&str, &str) = ("kube-system", "kube-dns");

pub(super) fn dns_endpoints(cluster: &Cluster) -> BTreeSet<(IpAddr, u16)> {
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

/// Which endpoints of several are closed, and by what.
struct Closed {
    /// What closes the first of them.
    culprit: Culprit,
    endpoints: BTreeSet<(IpAddr, u16)>,
    of: usize,
}

impl Closed {
    fn all(&self) -> bool {
        self.endpoints.len() == self.of
    }

    /// ` (192.168.1.100:6443)`, or how many of how many.
    fn text(&self) -> String {
        let which = list(&self.endpoints);
        if self.all() {
            format!("({which})")
        } else {
            format!(
                "at {} of its {} endpoints ({which})",
                self.endpoints.len(),
                self.of
            )
        }
    }
}

impl Reach<'_> {
    pub(super) fn api_server(&mut self, pod: &Pod) {
        if !pod.mounts_api_token || !self.may_be_closed(pod, Direction::Egress) {
            return;
        }
        let (culprit, at) = if self.api_server.is_empty() {
            let Some(culprit) = self.presumed_api_server(pod) else {
                return;
            };
            (culprit, "(an ipBlock, on port 6443 or 443)".to_owned())
        } else {
            let Some(closed) = self.closed_endpoints(pod, &self.api_server, Protocol::Tcp) else {
                return;
            };
            let text = closed.text();
            (closed.culprit, text)
        };
        let message = format!(
            "pod {} mounts a service-account token, and no rule lets it reach the API server {at}",
            pod.id
        );
        self.tell(&rules::API_SERVER_BLOCKED, pod, culprit, "", message);
    }

    /// What closes the way to the API server, wherever it may be; where the objects do not say where it is.
    pub(in crate::lint) fn presumed_api_server(&self, pod: &Pod) -> Option<Culprit> {
        let mut first = None;
        for ip in self.outsiders.iter().filter(|ip| pod_speaks(pod, ip)) {
            for port in presumed::API_SERVER_PORTS {
                let flow = Flow::tcp(End::Pod(pod.id.clone()), End::Ip(*ip), port);
                let culprit = self.closed(&flow, Direction::Egress)?;
                first.get_or_insert(culprit);
            }
        }
        first
    }

    pub(super) fn dns(&mut self, pod: &Pod) {
        let serves_dns = pod
            .ips
            .iter()
            .any(|ip| self.dns.iter().any(|(at, _)| at == ip));
        if serves_dns || !self.may_be_closed(pod, Direction::Egress) {
            return;
        }
        if let Some((culprit, at)) = self.dns_over(pod, Protocol::Udp) {
            let message = format!("pod {} cannot reach the cluster's DNS {at}", pod.id);
            self.tell(&rules::DNS_BLOCKED, pod, culprit, "", message);
        } else if let Some((culprit, at)) = self.dns_over(pod, Protocol::Tcp) {
            let message = format!(
                "pod {} reaches the cluster's DNS {at} over UDP but not over TCP",
                pod.id
            );
            self.tell(&rules::DNS_UDP_ONLY, pod, culprit, "", message);
        }
    }

    /// What closes the way to the cluster's DNS over a protocol, and where it is closed.
    pub(in crate::lint) fn dns_over(
        &self,
        pod: &Pod,
        protocol: Protocol,
    ) -> Option<(Culprit, String)> {
        if let Some(dns) = self.dns_pod {
            let flow = Flow {
                protocol,
                ..Flow::tcp(End::Pod(pod.id.clone()), End::Pod(dns.clone()), 53)
            };
            let culprit = self.closed(&flow, Direction::Egress)?;
            return Some((culprit, "(k8s-app: kube-dns in kube-system)".to_owned()));
        }
        let closed = self.closed_endpoints(pod, &self.dns, protocol)?;
        let text = closed.text();
        Some((closed.culprit, text))
    }

    /// Which of the endpoints that the pod has an address to talk to are closed to it.
    fn closed_endpoints(
        &self,
        pod: &Pod,
        endpoints: &BTreeSet<(IpAddr, u16)>,
        protocol: Protocol,
    ) -> Option<Closed> {
        let mut closed: Option<Closed> = None;
        let mut of = 0;
        for (ip, port) in endpoints.iter().filter(|(ip, _)| pod_speaks(pod, ip)) {
            of += 1;
            let flow = Flow {
                protocol,
                ..Flow::tcp(End::Pod(pod.id.clone()), End::Ip(*ip), *port)
            };
            if let Some(culprit) = self.closed(&flow, Direction::Egress) {
                let closed = closed.get_or_insert_with(|| Closed {
                    culprit,
                    endpoints: BTreeSet::new(),
                    of: 0,
                });
                closed.endpoints.insert((*ip, *port));
            }
        }
        closed.map(|closed| Closed { of, ..closed })
    }
}

fn list(endpoints: &BTreeSet<(IpAddr, u16)>) -> String {
    let all: Vec<String> = endpoints
        .iter()
        .map(|(ip, port)| SocketAddr::new(*ip, *port).to_string())
        .collect();
    all.join(", ")
}
