//! The cluster as `kubectl get -o yaml` prints it, so that addresses agree with the network.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::plan::{
    API_PORT, Addresses, DNS_SERVICE, Family, KUBERNETES_SERVICE, MASTER, NODE, OTHER_NODE, PODS,
    PodPlan,
};

/// The incident's policy: only `podSelector` rules.
pub const BROKEN_POLICY: &str = include_str!("../manifests/broken-policy.yaml");

/// Everything but policies. As in a real cluster, dual-stack or not, `default/kubernetes` is of one
/// family only: the primary one.
pub(crate) fn cluster(primary: Family) -> String {
    let mut documents = Vec::new();
    for name in ["default", "kube-system", "vault"] {
        documents.push(format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             kubernetes.io/metadata.name: {name}\n"
        ));
    }
    documents.push(node("master", MASTER, 0, true));
    documents.push(node("node-1", NODE, 1, false));
    documents.push(node("node-2", OTHER_NODE, 2, false));
    documents.extend(PODS.iter().map(pod));
    let kubernetes = [KUBERNETES_SERVICE.of(primary)];
    let api_port = [("https", 443, API_PORT, "TCP")];
    documents.push(service(
        "default",
        "kubernetes",
        &kubernetes,
        None,
        &api_port,
    ));
    documents.push(service(
        "kube-system",
        "kube-dns",
        &DNS_SERVICE.both(),
        Some("k8s-app: kube-dns"),
        &[("dns", 53, 53, "UDP"), ("dns-tcp", 53, 53, "TCP")],
    ));
    documents.push(service(
        "vault",
        "vault",
        &[],
        Some("app.kubernetes.io/name: vault"),
        &[
            ("https", 8200, 8200, "TCP"),
            ("https-internal", 8201, 8201, "TCP"),
        ],
    ));
    let https = [("https", API_PORT, "TCP")];
    documents.push(slice(
        "default",
        "kubernetes",
        primary == Family::V6,
        &[("", "", MASTER)],
        &https,
    ));
    for v6 in [false, true] {
        for (namespace, name, container) in [
            ("kube-system", "kube-dns", "coredns"),
            ("vault", "vault", "vault"),
        ] {
            let backends: Vec<_> = PODS
                .iter()
                .filter(|pod| pod.container == container)
                .collect();
            let endpoints: Vec<_> = backends
                .iter()
                .map(|pod| (pod.name, pod.node, pod.addresses))
                .collect();
            if let Some(first) = backends.first() {
                documents.push(slice(namespace, name, v6, &endpoints, first.ports));
            }
        }
    }
    documents.join("---\n")
}

fn node(name: &str, addresses: Addresses, third: u8, control_plane: bool) -> String {
    let role = if control_plane {
        "\n    node-role.kubernetes.io/control-plane: \"true\""
    } else {
        ""
    };
    format!(
        "apiVersion: v1\n\
         kind: Node\n\
         metadata:\n  name: {name}\n  labels:\n    kubernetes.io/hostname: {name}{role}\n\
         spec:\n  podCIDR: 10.42.{third}.0/24\n  podCIDRs:\n  - 10.42.{third}.0/24\n  - fd00:10:42:{third}::/64\n\
         status:\n  addresses:\n  - address: {}\n    type: InternalIP\n  - address: {}\n    type: InternalIP\n  \
         - address: {name}\n    type: Hostname\n",
        addresses.v4, addresses.v6,
    )
}

fn pod(pod: &PodPlan) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  labels:\n",
        pod.name, pod.namespace
    );
    for (key, value) in pod.labels {
        let _ = writeln!(text, "    {key}: \"{value}\"");
    }
    let owner = match pod.container {
        "vault" => Some(("apps/v1", "StatefulSet", "vault")),
        "coredns" => Some(("apps/v1", "ReplicaSet", "coredns-6799fbcd5")),
        _ => None,
    };
    if let Some((version, kind, name)) = owner {
        let _ = writeln!(
            text,
            "  ownerReferences:\n  - apiVersion: {version}\n    blockOwnerDeletion: true\n    \
             controller: true\n    kind: {kind}\n    name: {name}\n    uid: 5f0c7a4e-0000-4000-8000-000000000001"
        );
    }
    let _ = writeln!(
        text,
        "spec:\n  nodeName: {}\n  containers:\n  - name: {container}\n    image: {container}",
        pod.node,
        container = pod.container
    );
    if !pod.ports.is_empty() {
        text.push_str("    ports:\n");
    }
    for (name, port, protocol) in pod.ports {
        let _ = writeln!(
            text,
            "    - containerPort: {port}\n      name: {name}\n      protocol: {protocol}"
        );
    }
    if pod.container == "vault" {
        for (probe, period) in [("readinessProbe", 5), ("livenessProbe", 10)] {
            let _ = writeln!(
                text,
                "    {probe}:\n      failureThreshold: 3\n      httpGet:\n        path: /v1/sys/health\n        \
                 port: https\n        scheme: HTTPS\n      periodSeconds: {period}\n      \
                 successThreshold: 1\n      timeoutSeconds: 1"
            );
        }
        text.push_str(
            "    volumeMounts:\n    - mountPath: /var/run/secrets/kubernetes.io/serviceaccount\n      \
             name: kube-api-access\n      readOnly: true\n",
        );
    }
    let [v4, v6] = pod.addresses.both();
    let _ = write!(
        text,
        "status:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n  - ip: {v4}\n  - ip: {v6}\n"
    );
    text
}

fn service(
    namespace: &str,
    name: &str,
    ips: &[IpAddr],
    selector: Option<&str>,
    ports: &[(&str, u16, u16, &str)],
) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n"
    );
    let shown: Vec<_> = ips.iter().map(ToString::to_string).collect();
    let shown = if shown.is_empty() {
        vec!["None".to_owned()]
    } else {
        shown
    };
    let _ = write!(text, "  clusterIP: {}\n  clusterIPs:\n", shown[0]);
    for ip in shown {
        let _ = writeln!(text, "  - {ip}");
    }
    text.push_str("  ports:\n");
    for (name, port, target, protocol) in ports {
        let _ = writeln!(
            text,
            "  - name: {name}\n    port: {port}\n    protocol: {protocol}\n    targetPort: {target}"
        );
    }
    if let Some(selector) = selector {
        let _ = writeln!(text, "  selector:\n    {selector}");
    }
    text.push_str("  type: ClusterIP\n");
    text
}

fn slice(
    namespace: &str,
    service: &str,
    v6: bool,
    endpoints: &[(&str, &str, Addresses)],
    ports: &[(&str, u16, &str)],
) -> String {
    let (family, suffix) = if v6 { ("IPv6", "-v6") } else { ("IPv4", "") };
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}{suffix}\n  \
         namespace: {namespace}\n  labels:\n    kubernetes.io/service-name: {service}\n\
         addressType: {family}\nendpoints:\n"
    );
    for (pod, node, addresses) in endpoints {
        let [v4, six] = addresses.both();
        let ip = if v6 { six } else { v4 };
        let _ = writeln!(
            text,
            "- addresses:\n  - {ip}\n  conditions:\n    ready: true"
        );
        if !pod.is_empty() {
            let _ = writeln!(
                text,
                "  nodeName: {node}\n  targetRef:\n    kind: Pod\n    name: {pod}\n    namespace: {namespace}"
            );
        }
    }
    text.push_str("ports:\n");
    for (name, port, protocol) in ports {
        let _ = writeln!(
            text,
            "- name: {name}\n  port: {port}\n  protocol: {protocol}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;
    use serde::de::DeserializeOwned;
    use tracer_policy::model::{Node, Pod, Service};

    use super::*;

    fn documents<T: DeserializeOwned>(kind: &str) -> Vec<T> {
        let all: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&cluster(Family::V4)).unwrap();
        all.into_iter()
            .filter(|document| document["kind"] == kind)
            .map(|document| serde_json::from_value(document).unwrap())
            .collect()
    }

    #[test]
    fn pods_have_the_plans_addresses_and_probes() {
        let pods: Vec<_> = documents::<core::Pod>("Pod")
            .iter()
            .map(|pod| Pod::try_from(pod).unwrap())
            .collect();
        assert_eq!(pods.len(), PODS.len());
        for (pod, plan) in pods.iter().zip(&PODS) {
            assert_eq!(pod.ips, plan.addresses.both());
            assert_eq!(pod.node.as_deref(), Some(plan.node));
            let probes: Vec<_> = pod.probes.iter().map(|probe| probe.port).collect();
            let wanted: &[u16] = if plan.container == "vault" {
                &[8200, 8200]
            } else {
                &[]
            };
            assert_eq!(probes, wanted);
        }
    }

    #[test]
    fn nodes_and_services_have_the_plans_addresses() {
        let node = |node: &core::Node| Node::try_from(node).unwrap();
        let nodes: Vec<_> = documents::<core::Node>("Node").iter().map(node).collect();
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["master", "node-1", "node-2"]);
        for ip in NODE.both() {
            assert!(nodes[1].addresses.iter().any(|address| address.ip == ip));
        }
        let service = |service: &core::Service| Service::try_from(service).unwrap();
        let services: Vec<_> = documents::<core::Service>("Service")
            .iter()
            .map(service)
            .collect();
        assert_eq!(services[0].ips, [KUBERNETES_SERVICE.of(Family::V4)]);
        assert_eq!(services[1].ips, DNS_SERVICE.both());
        assert!(services[2].ips.is_empty());
    }
}
