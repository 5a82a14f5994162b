//! Pods that a workload's template asks for and no controller has made yet.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::{Pod, Workload};
use super::{ObjectError, Reader};

/// The pods of a workload (`Deployment`, `StatefulSet`, `DaemonSet`, `ReplicaSet`, `Job`, `CronJob`), as far as they can be told
/// apart: the first two of a StatefulSet, else one whose name ends in `*`.
///
/// They have neither address nor node: verdicts that hang on those are unknown. `replicas` is the field's
/// value, 1 where absent; none are asked for where it is 0.
///
/// # Errors
/// The first field of the template that does not hold what the API says.
pub fn from_template(
    kind: &'static str,
    metadata: &ObjectMeta,
    replicas: Option<i32>,
    template: &core::PodTemplateSpec,
) -> Result<Vec<Pod>, ObjectError> {
    let reader = Reader::new(kind, metadata);
    let name = reader.name()?;
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    let annotations = template
        .metadata
        .as_ref()
        .and_then(|m| m.annotations.clone());
    let names = match (kind, replicas.unwrap_or(1)) {
        (_, ..=0) => Vec::new(),
        ("StatefulSet", 1) => vec![format!("{name}-0")],
        ("StatefulSet", _) => vec![format!("{name}-0"), format!("{name}-1")],
        _ => vec![format!("{name}-*")],
    };
    names
        .into_iter()
        .map(|pod| {
            let object = core::Pod {
                metadata: ObjectMeta {
                    name: Some(pod),
                    namespace: metadata.namespace.clone(),
                    labels: labels.clone(),
                    annotations: annotations.clone(),
                    ..ObjectMeta::default()
                },
                spec: template.spec.clone(),
                status: None,
            };
            let mut pod = Pod::try_from(&object).map_err(|error| {
                reader.error(format!("spec.template.{}", error.field), error.problem)
            })?;
            pod.workload = Some(Workload {
                kind: kind.to_owned(),
                name: name.clone(),
            });
            Ok(pod)
        })
        .collect()
}
