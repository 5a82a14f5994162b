//! Network policies as an enforcer needs them: which pods, which peers, which ports.
//!
//! Resolved here from the API's words, apart from the engine in tracer-policy, so that what drops
//! packets and what explains drops do not share their mistakes.

#[cfg(test)]
mod agreement;
mod allow;
mod pods;
mod resolve;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize as _;

pub(crate) use allow::{Allow, AllowList, Direction, mapped};
pub(crate) use pods::PodFacts;
pub use pods::Pods;
pub(crate) use resolve::{Peers, Port, PortNumber, Resolved, Rule};

/// Policies to enforce.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<NetworkPolicy>);

impl Policies {
    /// From YAML documents, each a `NetworkPolicy` (`networking.k8s.io/v1`).
    pub fn parse(yaml: &str) -> Result<Self> {
        let documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(yaml).context("not valid YAML")?;
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .enumerate()
            .map(|(at, document)| {
                let kind = document["kind"].as_str().unwrap_or_default();
                ensure!(
                    kind == "NetworkPolicy",
                    "document {}: expected kind NetworkPolicy, found `{kind}`",
                    at + 1
                );
                NetworkPolicy::deserialize(document)
                    .with_context(|| format!("document {}: not a valid NetworkPolicy", at + 1))
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// From what `kubectl get networkpolicies -A -o json` prints.
    ///
    /// # Errors
    /// Names the policy whose object is not as the API says.
    pub fn from_api(list: &serde_json::Value) -> Result<Self> {
        let items = list["items"].as_array().context("expected a list")?;
        let policies = items.iter().map(|item| {
            NetworkPolicy::deserialize(item)
                .with_context(|| format!("policy {}", item["metadata"]["name"]))
        });
        policies.collect::<Result<_>>().map(Self)
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }
}
