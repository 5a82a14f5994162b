//! Which addresses and ports a Service's traffic goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Cluster;
use crate::model::{Pod, Readiness, Service, ServicePort, TargetPort};

/// What stands behind one port of a Service, in one family.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    /// Those that get traffic.
    pub(crate) serving: BTreeSet<(IpAddr, u16)>,
    /// Whether none of them is ready.
    pub(crate) none_ready: bool,
    /// Whether they were found by the Service's own selector, for want of endpoints.
    pub(crate) by_selector: bool,
}

impl Cluster {
    /// What gets the traffic to a port of a Service: endpoints that are ready, else those that still serve, else all.
    /// Where nobody has worked out endpoints, the pods that the Service selects.
    pub(crate) fn serving_backends(
        &self,
        service: &Service,
        port: &ServicePort,
        ipv4: bool,
    ) -> Backends {
        let mut all: BTreeMap<Readiness, BTreeSet<(IpAddr, u16)>> = BTreeMap::new();
        for slice in self.endpoints_of(&service.id) {
            let ports = slice.ports.iter();
            for own in ports.filter(|own| own.name == port.name && own.protocol == port.protocol) {
                for endpoint in &slice.endpoints {
                    let group = all.entry(endpoint.readiness).or_default();
                    group.insert((endpoint.ip, own.port));
                }
            }
        }
        let by_selector = self.endpoints_of(&service.id).next().is_none();
        if by_selector {
            for pod in self.pods_with_labels(&service.id.namespace, &service.selector) {
                let Some(target) = self.backend_port(service, port, pod) else {
                    continue;
                };
                let readiness = match pod.ready {
                    Some(false) if !service.publishes_not_ready => Readiness::NotReady,
                    _ => Readiness::Ready,
                };
                let group = all.entry(readiness).or_default();
                group.extend(pod.ips.iter().map(|ip| (*ip, target)));
            }
        }
        for group in all.values_mut() {
            // A dual-stack Service translates within a family.
            group.retain(|(ip, _)| ip.is_ipv4() == ipv4);
        }
        all.retain(|_, group| !group.is_empty());
        all.pop_first()
            .map(|(readiness, serving)| Backends {
                serving,
                none_ready: readiness != Readiness::Ready,
                by_selector,
            })
            .unwrap_or_default()
    }

    /// The port of `pod` that a Service's port leads to by the Service's own selector; `None` where it does not,
    /// or where endpoints say what stands behind the Service.
    pub(crate) fn backend_port(
        &self,
        service: &Service,
        port: &ServicePort,
        pod: &Pod,
    ) -> Option<u16> {
        let selects = service.selects(pod) && !pod.phase.finished();
        if !selects || self.endpoints_of(&service.id).next().is_some() {
            return None;
        }
        match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod
                .ports
                .iter()
                .find(|own| own.name.as_ref() == Some(name) && own.protocol == port.protocol)
                .map(|own| own.port),
        }
    }
}
