//! Pods behind a Service whose endpoints nobody has worked out yet.

use crate::cluster::Cluster;
use crate::model::{Pod, Protocol, Service, ServicePort};

/// The port of `pod` that a Service's port leads to by the Service's own selector; `None` where it does not,
/// or where endpoints say what stands behind the Service.
pub(super) fn by_selector(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    pod: &Pod,
) -> Option<u16> {
    cluster.backend_port(service, port, pod)
}

/// What the API server calls on `pod` that way: the pod's port, and the object that says so.
pub(super) fn api_calls<'a>(
    cluster: &'a Cluster,
    pod: &'a Pod,
) -> impl Iterator<Item = (u16, String)> + 'a {
    cluster.api_calls().iter().filter_map(move |call| {
        let service = cluster.service(&call.service)?;
        let port = service
            .ports
            .iter()
            .find(|own| own.port == call.port && own.protocol == Protocol::Tcp)?;
        let target = by_selector(cluster, service, port, pod)?;
        Some((target, format!("{} {}", call.kind.as_str(), call.object)))
    })
}
