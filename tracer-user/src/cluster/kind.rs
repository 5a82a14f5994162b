//! Which objects are read, in which version.

/// A kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `v1` Node.
    Node,
    /// `v1` Service.
    Service,
    /// `v1` Endpoints.
    Endpoints,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

/// What an object is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is read.
    Read(Kind),
    /// It would be read, were it in another version.
    Otherwise(Kind),
    /// It is of no use here.
    Unused,
}

impl Kind {
    /// Every kind that is read.
    pub const ALL: [Self; 10] = [
        Self::Namespace,
        Self::Pod,
        Self::Node,
        Self::Service,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// By `apiVersion` and `kind`. Other groups have kinds of the same names (Knative a Service, Calico
    /// a NetworkPolicy), which are others.
    pub(super) fn known(version: &str, kind: &str) -> Known {
        let Some(known) = Self::ALL.into_iter().find(|known| known.name() == kind) else {
            return Known::Unused;
        };
        let group = |version: &str| {
            version
                .split_once('/')
                .map_or(String::new(), |(group, _)| group.to_owned())
        };
        match (known, version) {
            (_, version) if version == known.version() => Known::Read(known),
            (Self::EndpointSlice, "discovery.k8s.io/v1beta1") => Known::Read(known),
            // Where NetworkPolicy came from; gone from the API since 1.16.
            (Self::NetworkPolicy, "extensions/v1beta1") => Known::Otherwise(known),
            (_, version) if group(version) == group(known.version()) => Known::Otherwise(known),
            _ => Known::Unused,
        }
    }

    /// As in `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The versions it is read in, the best first.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::EndpointSlice => &["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"],
            Self::NetworkPolicy => &["networking.k8s.io/v1"],
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                &["policy.networking.k8s.io/v1alpha1"]
            }
            Self::ClusterNetworkPolicy => &["policy.networking.k8s.io/v1alpha2"],
            _ => &["v1"],
        }
    }

    /// The resource's name in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Service => "services",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslices",
            Self::NetworkPolicy => "networkpolicies",
            Self::AdminNetworkPolicy => "adminnetworkpolicies",
            Self::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
        }
    }

    /// The `apiVersion` it is read in.
    pub const fn version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                "policy.networking.k8s.io/v1alpha1"
            }
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            _ => "v1",
        }
    }
}
