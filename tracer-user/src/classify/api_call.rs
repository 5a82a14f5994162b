//! Calls of the API server's own: webhooks and aggregated APIs.

use tracer_policy::model::{ApiCallKind, Protocol};
use tracer_policy::{Cluster, Owner};

use super::Way;
use crate::record::Class;

/// The label of the pods through which some clusters tunnel the API server's calls.
const KONNECTIVITY: (&str, &str) = ("k8s-app", "konnectivity-agent");

/// The class of a call that comes from where the API server may be: a control-plane node, the pod's own
/// node (K3s tunnels through it with `--egress-selector-mode` `pod` or `cluster`), a tunnel's pod. Where no
/// node says that it is of the control plane, any node may be.
pub(super) fn class(way: &Way<'_>, cluster: &Cluster) -> Option<Class> {
    let (Owner::Pod(server), Some(port), Protocol::Tcp) = (way.server, way.port, way.protocol)
    else {
        return None;
    };
    let may_be = match way.client {
        Owner::Node(node, _) => {
            node.control_plane
                || server.node.as_deref() == Some(&node.name)
                || !cluster.nodes().any(|node| node.control_plane)
        }
        Owner::Pod(pod) => {
            pod.labels.get(KONNECTIVITY.0).map(String::as_str) == Some(KONNECTIVITY.1)
        }
        Owner::Service(_) | Owner::External => false,
    };
    if !may_be {
        return None;
    }
    let mut calls = cluster.api_calls_to(way.server_ip, port);
    calls.next().map(|call| match call.kind {
        ApiCallKind::Validating | ApiCallKind::Mutating => Class::Webhook,
        ApiCallKind::Aggregated => Class::AggregatedApi,
    })
}
