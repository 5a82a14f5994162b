//! Kubelet probes: a node's own address to a probe port of a pod that runs there.

use tracer_policy::model::{Node, Pod, Probe, ProbeKind, Protocol};

use super::Way;

/// The probe that `way` is, where the kubelet of the pod's node sends it.
///
/// Another node's address is no probe: only the pod's own kubelet probes it, at `status.podIP`, the first
/// of its addresses, and never at the other family's (kubelet's `pkg/kubelet/prober/prober.go`). Where several probes use
/// the port, the one whose failure costs most is named: the packet does not tell them apart.
pub(super) fn of<'a>(node: &Node, pod: &'a Pod, way: &Way<'_>) -> Option<&'a Probe> {
    if way.protocol != Protocol::Tcp || pod.node.as_ref() != Some(&node.name) {
        return None;
    }
    if pod.ips.first() != Some(&way.server_ip) {
        return None;
    }
    pod.probes
        .iter()
        .filter(|probe| Some(probe.port) == way.port)
        .min_by_key(|probe| match probe.kind {
            ProbeKind::Liveness => 0,
            ProbeKind::Startup => 1,
            ProbeKind::Readiness => 2,
            ProbeKind::Lifecycle => 3,
        })
}
