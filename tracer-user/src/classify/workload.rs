//! Traffic known by the workloads at its ends.

use tracer_policy::model::{Pod, Protocol};
use tracer_policy::{Cluster, Owner};

use super::Way;

/// Labels by which charts and manifests name the program that runs in a pod.
const NAME_LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "k8s-app",
    "app",
    "app.kubernetes.io/component",
];

/// Programs that fetch metrics: Prometheus, `VictoriaMetrics`' and Grafana's agents, metrics-server.
const SCRAPERS: [&str; 10] = [
    "prometheus",
    "prometheus-server",
    "prometheus-agent",
    "vmagent",
    "victoria-metrics-agent",
    "vmsingle",
    "grafana-agent",
    "alloy",
    "opentelemetry-collector",
    "metrics-server",
];

/// Ingress controllers, by the names their own charts give.
const INGRESS_CONTROLLERS: [&str; 9] = [
    "traefik",
    "ingress-nginx",
    "nginx-ingress",
    "haproxy-ingress",
    "kubernetes-ingress",
    "contour",
    "envoy",
    "kong",
    "apisix-ingress-controller",
];

/// The kubelet's own port, which serves its metrics and those of the containers
/// (`KubeletConfiguration.port`).
const KUBELET: u16 = 10250;

/// Whether a metrics collector fetches from where metrics are offered: an annotated port, a port that
/// is named for it, or the kubelet.
pub(super) fn is_scrape(way: &Way<'_>, cluster: &Cluster) -> bool {
    let Owner::Pod(client) = way.client else {
        return false;
    };
    if way.protocol != Protocol::Tcp || !runs(client, &SCRAPERS) {
        return false;
    }
    match way.server {
        Owner::Pod(pod) => way.port.is_some_and(|port| {
            pod.scrape_port == Some(port) || has_metrics_name(pod, port, way, cluster)
        }),
        Owner::Node(..) => way.port == Some(KUBELET),
        Owner::Service(_) | Owner::External => false,
    }
}

/// Whether the container's port, or that of a Service before it, is called metrics.
fn has_metrics_name(pod: &Pod, port: u16, way: &Way<'_>, cluster: &Cluster) -> bool {
    let says = |name: &str| name.contains("metrics");
    let declared = pod.ports.iter().any(|own| {
        own.port == port && own.protocol == Protocol::Tcp && own.name.as_deref().is_some_and(says)
    });
    let served = || {
        cluster
            .services_behind(way.server_ip, port, Protocol::Tcp)
            .into_iter()
            .flat_map(|id| cluster.endpoints_of(id))
            .flat_map(|slice| &slice.ports)
            .any(|own| own.port == port && says(&own.name))
    };
    declared || served()
}

/// Whether an ingress controller hands a request on to a Service's pod.
pub(super) fn is_from_ingress(way: &Way<'_>, cluster: &Cluster) -> bool {
    let (Owner::Pod(client), Owner::Pod(_), Some(port)) = (way.client, way.server, way.port) else {
        return false;
    };
    runs(client, &INGRESS_CONTROLLERS)
        && !cluster
            .services_behind(way.server_ip, port, way.protocol)
            .is_empty()
}

/// Whether both are pods of one `StatefulSet`: members of a cluster of their own, as a rule.
pub(super) fn are_peers(way: &Way<'_>) -> bool {
    let (Owner::Pod(client), Owner::Pod(server)) = (way.client, way.server) else {
        return false;
    };
    client.workload.is_some()
        && client.workload == server.workload
        && client.id.namespace == server.id.namespace
        && client
            .workload
            .as_ref()
            .is_some_and(|own| own.kind == "StatefulSet")
}

fn runs(pod: &Pod, programs: &[&str]) -> bool {
    NAME_LABELS
        .iter()
        .filter_map(|key| pod.labels.get(*key))
        .any(|name| programs.contains(&name.as_str()))
}
