//! What the API server itself calls: webhooks and aggregated APIs behind Services.

use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde::{Deserialize, Serialize};

use super::ObjectRef;

/// The port of a Service that is called where none is named.
const DEFAULT_PORT: u16 = 443;

/// For what the API server calls a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ApiCallKind {
    /// A `ValidatingWebhookConfiguration`.
    Validating,
    /// A `MutatingWebhookConfiguration`.
    Mutating,
    /// An `APIService`.
    Aggregated,
}

impl ApiCallKind {
    /// The API's kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "ValidatingWebhookConfiguration",
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Aggregated => "APIService",
        }
    }
}

/// A Service that the API server calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall {
    /// For what.
    pub kind: ApiCallKind,
    /// The object that says so.
    pub object: String,
    /// The Service.
    pub service: ObjectRef,
    /// The Service's port.
    pub port: u16,
    /// Whether requests fail where the call does (`failurePolicy: Fail`, the default).
    pub required: bool,
}

impl ApiCall {
    /// What a configuration of validating webhooks has called; calls of a URL are left out.
    pub fn of_validating(object: &admission::ValidatingWebhookConfiguration) -> Vec<Self> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let webhooks = object.webhooks.iter().flatten();
        webhooks
            .filter_map(|webhook| {
                let policy = webhook.failure_policy.as_deref();
                webhook_call(
                    ApiCallKind::Validating,
                    name,
                    &webhook.client_config,
                    policy,
                )
            })
            .collect()
    }

    /// What a configuration of mutating webhooks has called; calls of a URL are left out.
    pub fn of_mutating(object: &admission::MutatingWebhookConfiguration) -> Vec<Self> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let webhooks = object.webhooks.iter().flatten();
        webhooks
            .filter_map(|webhook| {
                let policy = webhook.failure_policy.as_deref();
                webhook_call(ApiCallKind::Mutating, name, &webhook.client_config, policy)
            })
            .collect()
    }

    /// The Service that serves an aggregated API; none where the API server serves it itself.
    pub fn of_api_service(object: &APIService) -> Vec<Self> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref());
        service
            .and_then(|service| {
                Some(Self {
                    kind: ApiCallKind::Aggregated,
                    object: name.to_owned(),
                    service: ObjectRef::new(service.namespace.clone()?, service.name.clone()?),
                    port: port(service.port),
                    required: true,
                })
            })
            .into_iter()
            .collect()
    }
}

fn webhook_call(
    kind: ApiCallKind,
    object: &str,
    config: &admission::WebhookClientConfig,
    failure_policy: Option<&str>,
) -> Option<ApiCall> {
    let service = config.service.as_ref()?;
    Some(ApiCall {
        kind,
        object: object.to_owned(),
        service: ObjectRef::new(service.namespace.clone(), service.name.clone()),
        port: port(service.port),
        required: failure_policy != Some("Ignore"),
    })
}

fn port(port: Option<i32>) -> u16 {
    port.and_then(|port| u16::try_from(port).ok())
        .unwrap_or(DEFAULT_PORT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhooks_service_is_called_at_443_and_needed_unless_it_says_otherwise() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "cert-manager"},
            "webhooks": [
                {"name": "a", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                 "clientConfig": {"service": {"namespace": "cm", "name": "webhook"}}},
                {"name": "b", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
                 "clientConfig": {"service": {"namespace": "cm", "name": "webhook", "port": 8443}}},
                {"name": "c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                 "clientConfig": {"url": "https://example.org"}}]}))
        .unwrap();
        let calls = ApiCall::of_validating(&object);
        let told: Vec<_> = calls
            .iter()
            .map(|call| (call.service.to_string(), call.port, call.required))
            .collect();
        assert_eq!(
            told,
            [
                ("cm/webhook".to_owned(), 443, true),
                ("cm/webhook".to_owned(), 8443, false)
            ]
        );
    }

    #[test]
    fn an_api_of_the_api_servers_own_calls_nobody() {
        let call = |spec: serde_json::Value| {
            let object = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": spec});
            ApiCall::of_api_service(&serde_json::from_value(object).unwrap())
        };
        let spec = json!({"groupPriorityMinimum": 1, "versionPriority": 1});
        assert_eq!(call(spec.clone()), []);
        let mut served = spec;
        served["service"] = json!({"namespace": "kube-system", "name": "metrics-server"});
        assert_eq!(
            call(served)[0].service.to_string(),
            "kube-system/metrics-server"
        );
    }
}
