//! Names of policies.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// What kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    BaselineAdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// Calico's own of the name `NetworkPolicy`.
    CalicoNetworkPolicy,
    /// Calico's GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// Calico's Tier, which holds policies.
    CalicoTier,
    /// Calico's NetworkSet or GlobalNetworkSet, which policies select.
    CalicoNetworkSet,
}

impl PolicyKind {
    /// The API's kind; Calico's NetworkPolicy is told from the API's own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::CalicoNetworkPolicy => "CalicoNetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::CalicoTier => "Tier",
            Self::CalicoNetworkSet => "NetworkSet",
        }
    }

    /// Whether it is one of Calico's.
    pub const fn is_calico(self) -> bool {
        matches!(
            self,
            Self::CalicoNetworkPolicy
                | Self::GlobalNetworkPolicy
                | Self::CalicoTier
                | Self::CalicoNetworkSet
        )
    }
}

/// A policy by kind and name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyRef(Arc<Key>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    namespace: Option<String>,
    name: String,
    kind: PolicyKind,
}

impl PolicyRef {
    /// A policy by its parts; `namespace` is `None` for cluster-wide kinds.
    pub fn new(kind: PolicyKind, namespace: Option<String>, name: String) -> Self {
        Self(Arc::new(Key {
            namespace,
            name,
            kind,
        }))
    }

    /// The kind.
    pub fn kind(&self) -> PolicyKind {
        self.0.kind
    }

    /// The namespace, where the kind has one.
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace.as_deref()
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// `namespace/name`, or the name alone.
impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = self.namespace() {
            write!(f, "{namespace}/")?;
        }
        f.write_str(self.name())
    }
}

/// `{"namespace":..,"name":..}`, with `kind` where it is not a plain `NetworkPolicy`.
impl Serialize for PolicyRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let kind = (self.kind() != PolicyKind::NetworkPolicy).then(|| self.kind().as_str());
        let namespace = self.namespace();
        let fields = 1 + usize::from(kind.is_some()) + usize::from(namespace.is_some());
        let mut out = s.serialize_struct("PolicyRef", fields)?;
        if let Some(kind) = kind {
            out.serialize_field("kind", kind)?;
        }
        if let Some(namespace) = namespace {
            out.serialize_field("namespace", namespace)?;
        }
        out.serialize_field("name", self.name())?;
        out.end()
    }
}
