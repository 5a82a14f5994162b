//! Which objects are read, in which version.

use tracer_policy::Decides;

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
    /// Calico's Tier.
    CalicoTier,
    /// Calico's NetworkPolicy.
    CalicoNetworkPolicy,
    /// Calico's GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// Calico's NetworkSet.
    CalicoNetworkSet,
    /// Calico's GlobalNetworkSet.
    GlobalNetworkSet,
    /// `admissionregistration.k8s.io/v1` ValidatingWebhookConfiguration.
    ValidatingWebhooks,
    /// `admissionregistration.k8s.io/v1` MutatingWebhookConfiguration.
    MutatingWebhooks,
    /// `apiregistration.k8s.io/v1` APIService.
    ApiService,
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
    pub const ALL: [Self; 18] = [
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
        Self::CalicoTier,
        Self::CalicoNetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::CalicoNetworkSet,
        Self::GlobalNetworkSet,
        Self::ValidatingWebhooks,
        Self::MutatingWebhooks,
        Self::ApiService,
    ];

    /// By `apiVersion` and `kind`. Other groups have kinds of the same names (Knative a Service, Calico
    /// a NetworkPolicy), which are others.
    pub(super) fn known(version: &str, kind: &str) -> Known {
        let group = |version: &str| {
            version
                .split_once('/')
                .map_or(String::new(), |(group, _)| group.to_owned())
        };
        let mut otherwise = None;
        for known in Self::ALL.into_iter().filter(|known| known.name() == kind) {
            if known.versions().contains(&version) {
                return Known::Read(known);
            }
            let same_group = known
                .versions()
                .iter()
                .any(|own| group(own) == group(version));
            // Where NetworkPolicy came from; gone from the API since 1.16.
            let old = known == Self::NetworkPolicy && version == "extensions/v1beta1";
            if same_group || old {
                otherwise = Some(known);
            }
        }
        otherwise.map_or(Known::Unused, Known::Otherwise)
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
            Self::NetworkPolicy | Self::CalicoNetworkPolicy => "NetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::CalicoTier => "Tier",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::CalicoNetworkSet => "NetworkSet",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
            Self::ValidatingWebhooks => "ValidatingWebhookConfiguration",
            Self::MutatingWebhooks => "MutatingWebhookConfiguration",
            Self::ApiService => "APIService",
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
            Self::CalicoTier
            | Self::CalicoNetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::CalicoNetworkSet
            | Self::GlobalNetworkSet => &["projectcalico.org/v3", "crd.projectcalico.org/v1"],
            Self::ValidatingWebhooks | Self::MutatingWebhooks => {
                &["admissionregistration.k8s.io/v1"]
            }
            Self::ApiService => &["apiregistration.k8s.io/v1"],
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
            Self::NetworkPolicy | Self::CalicoNetworkPolicy => "networkpolicies",
            Self::AdminNetworkPolicy => "adminnetworkpolicies",
            Self::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
            Self::CalicoTier => "tiers",
            Self::GlobalNetworkPolicy => "globalnetworkpolicies",
            Self::CalicoNetworkSet => "networksets",
            Self::GlobalNetworkSet => "globalnetworksets",
            Self::ValidatingWebhooks => "validatingwebhookconfigurations",
            Self::MutatingWebhooks => "mutatingwebhookconfigurations",
            Self::ApiService => "apiservices",
        }
    }

    /// What verdicts lack where it cannot be read; `None`: only a class or a hint.
    pub const fn decides(self) -> Option<Decides> {
        match self {
            Self::Pod | Self::Node | Self::Service | Self::Endpoints | Self::EndpointSlice => {
                Some(Decides::Ends)
            }
            Self::Namespace
            | Self::NetworkPolicy
            | Self::AdminNetworkPolicy
            | Self::BaselineAdminNetworkPolicy
            | Self::ClusterNetworkPolicy
            | Self::CalicoTier
            | Self::CalicoNetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::CalicoNetworkSet
            | Self::GlobalNetworkSet => Some(Decides::Policies),
            Self::ValidatingWebhooks | Self::MutatingWebhooks | Self::ApiService => None,
        }
    }

    /// The resource's full name, as `kubectl` takes it: `networkpolicies.networking.k8s.io`.
    pub fn resource(self) -> String {
        match self.version().split_once('/') {
            Some((group, _)) => format!("{}.{group}", self.plural()),
            None => self.plural().to_owned(),
        }
    }

    /// The best `apiVersion` it is read in.
    pub const fn version(self) -> &'static str {
        self.versions()[0]
    }
}
