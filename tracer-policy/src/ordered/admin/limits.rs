//! How much of anything a v1alpha1 object may hold: what the API server would refuse was never applied.
//!
//! <https://github.com/kubernetes-sigs/network-policy-api/tree/v0.1.7/apis/v1alpha1>

use super::super::Found;
use super::spec::{PeerSpec, RuleSpec, Spec};
use super::unsupported;
use crate::policy::{Direction, PolicyKind, PolicyRef};

/// Rules a direction, peers a rule, ports a rule.
const ITEMS: usize = 100;

/// Characters of a rule's name.
const NAME: usize = 100;

/// Networks of a peer.
const NETWORKS: usize = 25;

/// The only name a baseline may have.
const BASELINE: &str = "default";

pub(super) fn check(id: &PolicyRef, spec: &Spec) -> Found<()> {
    match id.kind() {
        PolicyKind::ClusterNetworkPolicy => return Ok(()),
        PolicyKind::BaselineAdminNetworkPolicy if id.name() != BASELINE => {
            let problem = format!("there is one baseline, and it is named `{BASELINE}`");
            return Err(unsupported("metadata.name", &problem));
        }
        _ => {}
    }
    for (direction, rules) in [
        (Direction::Ingress, &spec.ingress),
        (Direction::Egress, &spec.egress),
    ] {
        let rules = rules.as_deref().unwrap_or_default();
        let field = format!("spec.{}", direction.as_str());
        most(&field, rules.len(), ITEMS)?;
    }
    Ok(())
}

pub(super) fn check_rule(kind: PolicyKind, rule: &RuleSpec, path: &str) -> Found<()> {
    if kind == PolicyKind::ClusterNetworkPolicy {
        return Ok(());
    }
    let length = rule.name.as_ref().map_or(0, |name| name.chars().count());
    if length > NAME {
        let problem = format!("{length} characters; {NAME} at most");
        return Err(unsupported(&format!("{path}.name"), &problem));
    }
    let ports = rule.ports.as_deref().unwrap_or_default();
    most(&format!("{path}.ports"), ports.len(), ITEMS)?;
    for (field, peers) in [("from", &rule.from), ("to", &rule.to)] {
        let peers = peers.as_deref().unwrap_or_default();
        most(&format!("{path}.{field}"), peers.len(), ITEMS)?;
        for (index, peer) in peers.iter().enumerate() {
            let field = format!("{path}.{field}[{index}].networks");
            match peer.networks.as_deref() {
                Some([]) => return Err(unsupported(&field, "empty; 1 at least")),
                Some(networks) => most(&field, networks.len(), NETWORKS)?,
                None => {}
            }
        }
        let has_no_names = |peer: &PeerSpec| peer.networks.is_some() || peer.nodes.is_some();
        let named = ports.iter().position(|port| port.named_port.is_some());
        if let Some(index) = named
            && peers.iter().any(has_no_names)
        {
            return Err(unsupported(
                &format!("{path}.ports[{index}].namedPort"),
                "nodes and networks have no named ports",
            ));
        }
    }
    Ok(())
}

fn most(field: &str, count: usize, most: usize) -> Found<()> {
    if count > most {
        return Err(unsupported(
            field,
            &format!("{count} items; {most} at most"),
        ));
    }
    Ok(())
}
