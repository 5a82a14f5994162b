//! When an object was changed, and by whom.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object's last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, to the second: the API keeps no more.
    pub time: Timestamp,
    /// Who, as the API's field managers have it: `kubectl-client-side-apply`, `helm`, `argocd-controller`.
    pub manager: Option<String>,
    /// Whether the object came to be with it.
    pub created: bool,
}

impl Change {
    /// The latest entry of `metadata.managedFields` that is not about the status, else the creation.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let managed = metadata
            .managed_fields
            .iter()
            .flatten()
            .filter(|entry| entry.subresource.as_deref().is_none_or(str::is_empty))
            .filter_map(|entry| Some((entry.time.as_ref()?.0, entry.manager.clone())))
            .max_by_key(|(time, _)| *time);
        let (time, manager) = managed.or_else(|| Some((created?, None)))?;
        Some(Self {
            time,
            manager,
            created: created.is_some_and(|created| created >= time),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(metadata: serde_json::Value) -> Option<Change> {
        Change::of(&serde_json::from_value(metadata).unwrap())
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn the_latest_writer_of_the_object_itself_counts() {
        let metadata = json!({
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:07Z"},
                {"manager": "helm", "operation": "Apply", "time": "2026-01-01T00:00:00Z"},
                {"manager": "cni", "operation": "Update", "time": "2026-01-01T00:01:00Z",
                 "subresource": "status"}]});
        assert_eq!(
            change(metadata),
            Some(Change {
                time: at("2026-01-01T00:00:07Z"),
                manager: Some("kubectl".into()),
                created: false
            })
        );
    }

    #[test]
    fn without_managers_the_creation_counts() {
        assert_eq!(
            change(json!({"creationTimestamp": "2026-01-01T00:00:00Z"})),
            Some(Change {
                time: at("2026-01-01T00:00:00Z"),
                manager: None,
                created: true
            })
        );
        assert_eq!(change(json!({"name": "x"})), None);
    }
}
