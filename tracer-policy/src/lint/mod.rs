//! Mistakes in policies that nobody sees until they bite.

mod behind;
mod peers;
mod ports;
mod presumed;
mod reach;
mod rules;
mod spec;
mod unpopulated;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::model::ObjectRef;
use crate::policy::PolicyRef;

pub use rules::{RULES, Rule};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Likely not what was meant.
    Warning,
    /// Something that should work does not.
    Error,
}

impl Severity {
    /// As in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind of mistake.
    #[serde(flatten)]
    pub rule: &'static Rule,
    /// The policy it is in; for what several policies do together, the first of them by name.
    pub policy: PolicyRef,
    /// The field of the policy, where one is to blame: `spec.egress[1].to[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The pod that suffers, or one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do, in one sentence.
    pub fix: String,
}

impl Finding {
    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.rule.severity
    }
}

/// Everything wrong with the policies of a cluster, by policy and field.
///
/// What reaches what is judged by the cluster's dataplane profile. A workload's pods are reported once,
/// by the first of them.
///
/// Objects without a single node are taken for manifests: the API server, the nodes and the cluster's DNS
/// are then whatever a rule may mean by them, and what may live elsewhere is not missed.
pub fn lint(cluster: &Cluster) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut presumed = None;
    let dns = ObjectRef::new("kube-system", "kube-dns");
    if !presumed::is_whole(cluster) && cluster.service(&dns).is_none() {
        presumed = Some(presumed::with_dns(cluster));
    }
    let (cluster, dns_pod) = match &presumed {
        Some((cluster, pod)) => (cluster, Some(pod)),
        None => (cluster, None),
    };
    for policy in cluster.policies().filter(|p| p.broken.is_none()) {
        spec::check(policy, &mut found);
        peers::check(cluster, policy, &mut found);
        ports::check(cluster, policy, &mut found);
    }
    reach::check(cluster, dns_pod, &mut found);
    unpopulated::check(cluster, dns_pod, &mut found);
    found.sort_by(|a, b| {
        let key = |f: &Finding| (f.policy.clone(), f.field.clone(), f.rule.id, f.pod.clone());
        key(a).cmp(&key(b))
    });
    found
}
