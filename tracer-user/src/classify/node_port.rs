//! What comes through a `NodePort` or a load balancer, and has lost its sender's address on the way.

use tracer_policy::{Cluster, Owner};

use super::Way;

/// The label K3s's own load balancer gives its pods, which masquerade what they hand on.
const SVCLB: &str = "svccontroller.k3s.cattle.io/svcname";

/// Whether a node, or a pod of K3s's load balancer, sends to the pod behind a Service that is open to the
/// outside: then the sender is someone outside, and the address is where the packet came through.
pub(super) fn is_through(way: &Way<'_>, cluster: &Cluster) -> bool {
    let masqueraded = match way.client {
        Owner::Node(..) => true,
        Owner::Pod(pod) => pod.labels.contains_key(SVCLB),
        Owner::Service(_) | Owner::External => false,
    };
    let (true, Owner::Pod(_), Some(port)) = (masqueraded, way.server, way.port) else {
        return false;
    };
    cluster
        .services_behind(way.server_ip, port, way.protocol)
        .into_iter()
        .filter_map(|id| cluster.service(id))
        .flat_map(|service| {
            let opened = service.ports.iter().filter(|own| own.node_port.is_some());
            opened.map(move |own| (service, own))
        })
        .any(|(service, own)| {
            own.protocol == way.protocol
                && cluster
                    .backends(&service.id, own)
                    .contains(&(way.server_ip, port))
        })
}
