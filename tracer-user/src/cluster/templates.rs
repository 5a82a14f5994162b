//! Workloads in manifests, for the pods they ask for.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;
use tracer_policy::Cluster;
use tracer_policy::model::{Pod, Workload, from_template};

use super::object::{FieldError, parse};

/// The workloads whose templates are read.
const KINDS: [(&str, &str); 6] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

/// What was found in templates, until it is known which pods are there already.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pods: Vec<Template>,
    /// Service accounts whose token is not mounted: namespace, name.
    without_token: HashSet<(String, String)>,
}

#[derive(Debug)]
struct Template {
    pod: Pod,
    /// The service account that decides whether its token is mounted, where the template leaves it open.
    asks: Option<String>,
}

/// What all of these kinds have in common.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i32>,
    selector: Option<LabelSelector>,
    template: Option<PodTemplateSpec>,
    job_template: Option<JobTemplate>,
}

#[derive(Deserialize)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Deserialize)]
struct JobSpec {
    template: PodTemplateSpec,
}

impl Templates {
    /// Takes an object over where it is of these kinds, and what it selects its pods by into `cluster`.
    pub(super) fn take(
        &mut self,
        version: &str,
        kind: &str,
        object: &Value,
        cluster: &mut Cluster,
    ) -> Result<(), FieldError> {
        if (version, kind) == ("v1", "ServiceAccount") {
            let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str();
            if object.get("automountServiceAccountToken") == Some(&Value::Bool(false)) {
                self.without_token.insert((
                    metadata("namespace").unwrap_or("default").to_owned(),
                    metadata("name").unwrap_or_default().to_owned(),
                ));
            }
            return Ok(());
        }
        let Some((_, kind)) = KINDS.into_iter().find(|known| *known == (version, kind)) else {
            return Ok(());
        };
        let object: Object = parse(object)?;
        if let Some(selector) = &object.spec.selector {
            apply_selector(kind, &object.metadata, selector, cluster);
        }
        let owners = object.metadata.owner_references.iter().flatten();
        if owners
            .into_iter()
            .any(|owner| owner.controller == Some(true))
        {
            // What owns it asks for the pods.
            return Ok(());
        }
        let template = object
            .spec
            .template
            .or(object.spec.job_template.map(|job| job.spec.template));
        let Some(template) = template else {
            return Ok(());
        };
        let asks = template
            .spec
            .as_ref()
            .filter(|spec| spec.automount_service_account_token.is_none())
            .map(|spec| {
                let name = spec.service_account_name.clone();
                name.unwrap_or_else(|| "default".to_owned())
            });
        let pods = from_template(kind, &object.metadata, object.spec.replicas, &template)?;
        self.pods.extend(pods.into_iter().map(|pod| Template {
            pod,
            asks: asks.clone(),
        }));
        Ok(())
    }

    /// Adds the pods of the workloads that have none.
    pub(super) fn apply(self, cluster: &mut Cluster) {
        let running: HashSet<_> = cluster
            .pods()
            .filter_map(|pod| Some((pod.id.namespace.clone(), pod.workload.clone()?)))
            .collect();
        for Template { mut pod, asks } in self.pods {
            let namespace = pod.id.namespace.clone();
            let is_new = pod
                .workload
                .clone()
                .is_some_and(|workload| !running.contains(&(namespace.clone(), workload)));
            if is_new && cluster.pod_at(&pod.id).is_none() {
                let refused =
                    asks.is_some_and(|name| self.without_token.contains(&(namespace, name)));
                pod.mounts_api_token &= !refused;
                cluster.apply_pod(pod);
            }
        }
    }
}

/// Expressions are no labels: a selector that has some is left aside.
pub(super) fn apply_selector(
    kind: &str,
    metadata: &ObjectMeta,
    selector: &LabelSelector,
    cluster: &mut Cluster,
) {
    if selector.match_expressions.iter().flatten().next().is_some() {
        return;
    }
    let workload = Workload {
        kind: kind.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let labels = selector.match_labels.clone().unwrap_or_default();
    cluster.apply_workload_selector(namespace, workload, labels);
}
