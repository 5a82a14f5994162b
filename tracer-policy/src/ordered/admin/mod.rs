//! The `policy.networking.k8s.io` kinds.
//!
//! v1alpha1: <https://github.com/kubernetes-sigs/network-policy-api/tree/v0.1.7/apis/v1alpha1>, v1alpha2:
//! <https://github.com/kubernetes-sigs/network-policy-api/tree/main/apis/v1alpha2>. A field that is not here is
//! an error, never passed over: it may be what the verdict hangs on.

mod limits;
mod ports;
mod spec;

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Action, Found, Matcher, OrderedPolicy, OrderedRule, Peer, Subject, Tier, Whom, read_rules,
};
use crate::intern::Symbols;
use crate::policy::{CompileError, Direction, PolicyKind, PolicyRef, Problem};
use crate::selector::Selector;
use ports::{port, protocol};
use spec::{PeerSpec, RuleSpec, SelectorSpec, Spec, SubjectSpec};

/// Highest `priority`.
const LOWEST: i64 = 1000;

pub(super) fn read(
    id: PolicyRef,
    object: &Value,
    symbols: &mut impl Symbols,
) -> Found<OrderedPolicy> {
    let kind = id.kind();
    let spec: Spec = serde_path_to_error::deserialize(&object["spec"]).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "spec".to_owned()
        } else {
            format!("spec.{path}")
        };
        (field, Problem::Unsupported(error.inner().to_string()))
    })?;
    limits::check(&id, &spec)?;
    let tier = tier(kind, spec.tier.as_deref())?;
    let order = match (kind, spec.priority) {
        (PolicyKind::BaselineAdminNetworkPolicy, None) => 0,
        (PolicyKind::BaselineAdminNetworkPolicy, Some(_)) => {
            return Err(unsupported("spec.priority", "a baseline has no priority"));
        }
        (_, Some(priority @ 0..=LOWEST)) => priority,
        (_, Some(other)) => {
            let problem = format!("{other} is no priority: priorities go from 0 to {LOWEST}");
            return Err(unsupported("spec.priority", &problem));
        }
        (_, None) => return Err(("spec.priority".into(), Problem::Missing)),
    };
    let subject = subject(&spec.subject, symbols)?;
    let mut rules = |direction: Direction, specs: Option<&[Value]>| {
        let specs = specs.unwrap_or_default();
        let rules = read_rules(&id, direction, specs, |spec: &RuleSpec, path, text| {
            limits::check_rule(kind, spec, path)?;
            rule(kind, direction, spec, path.to_owned(), text, symbols).map(Some)
        });
        // Without rules it does not touch the direction.
        (!rules.is_empty()).then_some(rules)
    };
    Ok(OrderedPolicy {
        rules: [
            rules(Direction::Ingress, spec.ingress.as_deref()),
            rules(Direction::Egress, spec.egress.as_deref()),
        ],
        id,
        tier,
        #[expect(clippy::cast_precision_loss, reason = "1000 at most")]
        order: order as f64,
        subject: Whom::Labels(subject),
        broken: None,
        object: None,
        changed: None,
    })
}

/// What stands in for a policy that cannot be read: it is about whom it says, or everyone where that is what
/// is wrong, and may do anything.
pub(super) fn broken(
    id: PolicyRef,
    error: CompileError,
    object: &Value,
    symbols: &mut impl Symbols,
) -> OrderedPolicy {
    let spec = &object["spec"];
    let tier = tier(id.kind(), spec["tier"].as_str()).unwrap_or_else(|_| Tier::admin());
    let subject = serde_json::from_value::<SubjectSpec>(spec["subject"].clone())
        .ok()
        .and_then(|spec| subject(&spec, symbols).ok())
        .unwrap_or_default();
    let says = |field: &str| {
        // A field that is no list may be anything.
        !matches!(&spec[field], Value::Null) && spec[field] != Value::Array(Vec::new())
    };
    let rules = |field: &str| says(field).then(|| Box::new([]) as Box<[OrderedRule]>);
    OrderedPolicy {
        id,
        tier,
        order: spec["priority"].as_f64().unwrap_or_default(),
        subject: Whom::Labels(subject),
        rules: [rules("ingress"), rules("egress")],
        broken: Some(Arc::new(error)),
        object: None,
        changed: None,
    }
}

fn unsupported(field: &str, problem: &str) -> (String, Problem) {
    (field.to_owned(), Problem::Unsupported(problem.to_owned()))
}

fn tier(kind: PolicyKind, tier: Option<&str>) -> Found<Tier> {
    match (kind, tier) {
        (PolicyKind::AdminNetworkPolicy, None)
        | (PolicyKind::ClusterNetworkPolicy, Some("Admin")) => Ok(Tier::admin()),
        (PolicyKind::BaselineAdminNetworkPolicy, None)
        | (PolicyKind::ClusterNetworkPolicy, Some("Baseline")) => Ok(Tier::baseline()),
        (PolicyKind::ClusterNetworkPolicy, None) => Err(("spec.tier".into(), Problem::Missing)),
        (PolicyKind::ClusterNetworkPolicy, Some(other)) => Err(unsupported(
            "spec.tier",
            &format!("`{other}` is no tier: write Admin or Baseline"),
        )),
        _ => Err(unsupported("spec.tier", "this kind has no tier")),
    }
}

fn subject(spec: &SubjectSpec, symbols: &mut impl Symbols) -> Found<Subject> {
    let mut compile = |selector: &SelectorSpec, field: &str| {
        Selector::compile(
            &selector.to_api(),
            &format!("spec.subject.{field}"),
            symbols,
        )
    };
    match (&spec.namespaces, &spec.pods) {
        (Some(namespaces), None) => Ok(Subject {
            namespaces: compile(namespaces, "namespaces")?,
            pods: Selector::default(),
        }),
        (None, Some(pods)) => Ok(Subject {
            namespaces: compile(&pods.namespace_selector, "pods.namespaceSelector")?,
            pods: compile(&pods.pod_selector, "pods.podSelector")?,
        }),
        _ => Err(unsupported(
            "spec.subject",
            "give exactly one of namespaces and pods",
        )),
    }
}

fn rule(
    kind: PolicyKind,
    direction: Direction,
    spec: &RuleSpec,
    path: String,
    text: &str,
    symbols: &mut impl Symbols,
) -> Found<OrderedRule> {
    let newer = kind == PolicyKind::ClusterNetworkPolicy;
    let action = match spec.action.as_str() {
        "Allow" if !newer => Action::Allow,
        "Accept" if newer => Action::Allow,
        "Deny" => Action::Deny,
        "Pass" if kind != PolicyKind::BaselineAdminNetworkPolicy => Action::Pass,
        other => {
            return Err(unsupported(
                &format!("{path}.action"),
                &format!("`{other}` is no action of this kind"),
            ));
        }
    };
    let (field, peers, stray) = match direction {
        Direction::Ingress => ("from", &spec.from, &spec.to),
        Direction::Egress => ("to", &spec.to, &spec.from),
    };
    if stray.is_some() {
        return Err(unsupported(
            &path,
            "from belongs to ingress and to to egress",
        ));
    }
    let peers = peers
        .as_ref()
        .filter(|peers| !peers.is_empty())
        .ok_or_else(|| (format!("{path}.{field}"), Problem::Missing))?;
    let peers = peers
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            peer(
                spec,
                direction,
                &format!("{path}.{field}[{index}]"),
                symbols,
            )
        })
        .collect::<Found<_>>()?;
    let ports = match (&spec.ports, &spec.protocols) {
        (None, None) => None,
        (Some(ports), None) if !newer && !ports.is_empty() => Some(
            ports
                .iter()
                .enumerate()
                .map(|(index, spec)| port(spec, &format!("{path}.ports[{index}]")))
                .collect::<Found<Vec<_>>>()?
                .concat()
                .into(),
        ),
        (None, Some(protocols)) if newer && !protocols.is_empty() => Some(
            protocols
                .iter()
                .enumerate()
                .map(|(index, spec)| protocol(spec, &format!("{path}.protocols[{index}]")))
                .collect::<Found<Vec<_>>>()?
                .concat()
                .into(),
        ),
        (Some(_), _) => {
            return Err(unsupported(
                &format!("{path}.ports"),
                "not as this kind has it",
            ));
        }
        (None, Some(_)) => {
            return Err(unsupported(
                &format!("{path}.protocols"),
                "not as this kind has it",
            ));
        }
    };
    Ok(OrderedRule {
        action,
        path: path.into(),
        text: text.into(),
        matcher: Matcher::Peers { peers, ports },
    })
}

fn peer(
    spec: &PeerSpec,
    direction: Direction,
    path: &str,
    symbols: &mut impl Symbols,
) -> Found<Peer> {
    let mut compile = |selector: &SelectorSpec, field: &str| {
        Selector::compile(&selector.to_api(), &format!("{path}.{field}"), symbols)
    };
    match (&spec.namespaces, &spec.pods, &spec.nodes, &spec.networks) {
        (Some(namespaces), None, None, None) => Ok(Peer::Pods {
            namespaces: compile(namespaces, "namespaces")?,
            pods: Selector::default(),
        }),
        (None, Some(pods), None, None) => Ok(Peer::Pods {
            namespaces: compile(&pods.namespace_selector, "pods.namespaceSelector")?,
            pods: compile(&pods.pod_selector, "pods.podSelector")?,
        }),
        (None, None, Some(nodes), None) if direction == Direction::Egress => {
            Ok(Peer::Nodes(compile(nodes, "nodes")?))
        }
        (None, None, None, Some(networks)) if direction == Direction::Egress => networks
            .iter()
            .enumerate()
            .map(|(index, text)| {
                text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                    (
                        format!("{path}.networks[{index}]"),
                        Problem::Cidr(text.clone()),
                    )
                })
            })
            .collect::<Found<_>>()
            .map(Peer::Networks),
        _ => Err(unsupported(
            path,
            "give exactly one of namespaces and pods, or for egress nodes or networks",
        )),
    }
}
