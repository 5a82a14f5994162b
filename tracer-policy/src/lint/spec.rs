//! What the specification alone gives away.

use super::{Finding, rules};
use crate::policy::Policy;

pub(super) fn check(policy: &Policy, found: &mut Vec<Finding>) {
    let spec = policy.spec();
    let has_types = spec.policy_types.as_ref().is_some_and(|t| !t.is_empty());
    let has_rules = |count: Option<usize>| count.is_some_and(|n| n > 0);
    let only_egress = has_rules(spec.egress.as_ref().map(Vec::len)) && spec.ingress.is_none();
    if !has_types && only_egress {
        found.push(Finding {
            rule: &rules::TYPES_OMITTED,
            policy: policy.id.clone(),
            field: Some("spec.policyTypes".to_owned()),
            pod: None,
            message:
                "policyTypes is absent and there are egress rules only: this denies all ingress too"
                    .to_owned(),
            fix: "write `policyTypes: [Egress]`, or add the ingress rules that are meant"
                .to_owned(),
        });
    }
}
