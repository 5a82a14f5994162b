//! Namespaces.

use serde::{Deserialize, Serialize};

use super::Labels;

/// A namespace: what namespace selectors match against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// The name.
    pub name: String,
    /// Labels; `kubernetes.io/metadata.name` is added where the object does not carry it, as the API
    /// server does since 1.21.
    pub labels: Labels,
}
