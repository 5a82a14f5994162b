//! Objects from YAML, as a user's manifests have them.
#![expect(clippy::unwrap_used, reason = "a broken fixture should fail the test")]

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;
use tracer_policy::Cluster;
use tracer_policy::model::{Namespace, Node, Pod, Service, from_endpoints, from_template};

/// Applies every document of `yaml`.
pub fn apply(cluster: &mut Cluster, yaml: &str) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    for document in documents {
        match document["kind"].as_str().unwrap() {
            "Namespace" => {
                let object: core::Namespace = serde_json::from_value(document).unwrap();
                cluster.apply_namespace(Namespace::try_from(&object).unwrap());
            }
            "Node" => {
                let object: core::Node = serde_json::from_value(document).unwrap();
                cluster.apply_node(Node::try_from(&object).unwrap());
            }
            "Pod" => {
                let object: core::Pod = serde_json::from_value(document).unwrap();
                cluster.apply_pod(Pod::try_from(&object).unwrap());
            }
            "Deployment" => {
                let object: apps::Deployment = serde_json::from_value(document).unwrap();
                let spec = object.spec.unwrap();
                let pods = from_template(
                    "Deployment",
                    &object.metadata,
                    spec.replicas,
                    &spec.template,
                );
                for pod in pods.unwrap() {
                    cluster.apply_pod(pod);
                }
            }
            "Service" => {
                let object: core::Service = serde_json::from_value(document).unwrap();
                cluster.apply_service(Service::try_from(&object).unwrap());
            }
            "Endpoints" => {
                let object: core::Endpoints = serde_json::from_value(document).unwrap();
                for endpoints in from_endpoints(&object).unwrap() {
                    cluster.apply_endpoints(endpoints);
                }
            }
            "NetworkPolicy" => {
                let object: NetworkPolicy = serde_json::from_value(document).unwrap();
                cluster.apply_network_policy(&object).unwrap();
            }
            other => panic!("no test applies a {other}"),
        }
    }
}

/// A cluster of these documents.
pub fn cluster(yaml: &str) -> Cluster {
    let mut cluster = Cluster::new();
    apply(&mut cluster, yaml);
    cluster
}
