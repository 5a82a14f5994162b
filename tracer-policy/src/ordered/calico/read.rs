//! From Calico's JSON to the compiled form.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Criteria, Entity, IcmpKind, Scope, Selector, Subject};
use crate::cluster::Cluster;
use crate::model::Protocol;
use crate::ordered::{Action, Found, Matcher, OrderedPolicy, OrderedRule, Tier, Whom, read_rules};
use crate::policy::{CompileError, Direction, PolicyRef, PortNumber, Problem};

/// The tier of policies that name none.
const DEFAULT_TIER: &str = "default";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    tier: Option<String>,
    order: Option<f64>,
    #[serde(default, deserialize_with = "or_default")]
    selector: String,
    #[serde(default, deserialize_with = "or_default")]
    namespace_selector: String,
    #[serde(default, deserialize_with = "or_default")]
    service_account_selector: String,
    #[serde(default, deserialize_with = "or_default")]
    types: Vec<String>,
    /// [`RuleSpec`]s.
    #[serde(default, deserialize_with = "or_default")]
    ingress: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    egress: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    do_not_track: bool,
    #[serde(default, deserialize_with = "or_default", rename = "preDNAT")]
    pre_dnat: bool,
    /// About host endpoints only.
    #[serde(default, rename = "applyOnForward")]
    _apply_on_forward: bool,
    #[serde(default, rename = "performanceHints")]
    _performance_hints: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSpec {
    action: String,
    #[serde(rename = "ipVersion")]
    ip_version: Option<u8>,
    protocol: Option<ProtocolSpec>,
    not_protocol: Option<ProtocolSpec>,
    icmp: Option<IcmpSpec>,
    #[serde(rename = "notICMP")]
    not_icmp: Option<IcmpSpec>,
    #[serde(default, deserialize_with = "or_default")]
    source: EntitySpec,
    #[serde(default, deserialize_with = "or_default")]
    destination: EntitySpec,
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ProtocolSpec {
    Number(u8),
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IcmpSpec {
    #[serde(rename = "type")]
    kind: Option<u8>,
    code: Option<u8>,
}

impl From<&IcmpSpec> for IcmpKind {
    fn from(spec: &IcmpSpec) -> Self {
        Self {
            kind: spec.kind,
            code: spec.code,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EntitySpec {
    #[serde(default, deserialize_with = "or_default")]
    nets: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    not_nets: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    selector: String,
    #[serde(default, deserialize_with = "or_default")]
    not_selector: String,
    #[serde(default, deserialize_with = "or_default")]
    namespace_selector: String,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<PortSpec>,
    #[serde(default, deserialize_with = "or_default")]
    not_ports: Vec<PortSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PortSpec {
    Number(u16),
    Text(String),
}

/// `null` as Calico's own decoder takes it: as if the field were not there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

/// Ahead of its name the CRD's objects have their tier's.
pub(in crate::ordered) fn plain_name<'a>(name: &'a str, object: &Value) -> &'a str {
    let tier = object["spec"]["tier"].as_str().unwrap_or(DEFAULT_TIER);
    let crd = object["apiVersion"]
        .as_str()
        .is_some_and(|version| version.starts_with("crd."));
    name.strip_prefix(tier)
        .and_then(|rest| rest.strip_prefix('.'))
        .filter(|rest| crd && !rest.is_empty())
        .unwrap_or(name)
}

pub(in crate::ordered) fn read(
    id: PolicyRef,
    object: &Value,
    cluster: &Cluster,
) -> Found<OrderedPolicy> {
    let spec: Spec = serde_path_to_error::deserialize(&object["spec"]).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "spec".to_owned()
        } else {
            format!("spec.{path}")
        };
        (field, Problem::Unsupported(error.inner().to_string()))
    })?;
    if !spec.service_account_selector.is_empty() {
        return Err(unsupported(
            "spec.serviceAccountSelector",
            "service accounts are not known here",
        ));
    }
    let namespace = id.namespace().map(str::to_owned);
    let subject = Subject {
        namespaces: optional(&spec.namespace_selector, "spec.namespaceSelector")?,
        pods: optional(&spec.selector, "spec.selector")?.unwrap_or(Selector::All),
        namespace: namespace.clone(),
    };
    let rules = |direction: Direction, specs: &[Value]| {
        read_rules(&id, direction, specs, |spec: &RuleSpec, path, text| {
            rule(spec, namespace.as_deref(), path.to_owned(), text)
        })
    };
    let (ingress, egress) = directions(&spec)?;
    // Policies of host endpoints: no pod meets them.
    let for_pods = !spec.do_not_track && !spec.pre_dnat;
    let compiled = [
        rules(Direction::Ingress, &spec.ingress),
        rules(Direction::Egress, &spec.egress),
    ];
    let [ingress_rules, egress_rules] = compiled;
    Ok(OrderedPolicy {
        id,
        tier: tier_of(spec.tier.as_deref(), cluster),
        order: spec.order.unwrap_or(f64::INFINITY),
        subject: Whom::Calico(subject),
        rules: [
            (for_pods && ingress).then_some(ingress_rules),
            (for_pods && egress).then_some(egress_rules),
        ],
        broken: None,
        object: None,
        changed: None,
    })
}

/// What stands in for a policy that cannot be read.
pub(in crate::ordered) fn broken(
    id: PolicyRef,
    error: CompileError,
    object: &Value,
    cluster: &Cluster,
) -> OrderedPolicy {
    let spec = &object["spec"];
    let selector = |field: &str| {
        spec[field]
            .as_str()
            .and_then(|text| optional(text, field).ok())
            .flatten()
    };
    let subject = Subject {
        namespace: id.namespace().map(str::to_owned),
        namespaces: selector("namespaceSelector"),
        pods: selector("selector").unwrap_or(Selector::All),
    };
    OrderedPolicy {
        id,
        tier: tier_of(spec["tier"].as_str(), cluster),
        order: spec["order"].as_f64().unwrap_or(f64::INFINITY),
        subject: Whom::Calico(subject),
        rules: [Some(Box::new([])), Some(Box::new([]))],
        broken: Some(Arc::new(error)),
        object: None,
        changed: None,
    }
}

fn tier_of(name: Option<&str>, cluster: &Cluster) -> Tier {
    let name = name.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_TIER);
    if name == DEFAULT_TIER {
        return Tier::default();
    }
    cluster
        .tiers()
        .iter()
        .find(|tier| *tier.name == *name)
        .cloned()
        .unwrap_or_else(|| Tier::last(name))
}

fn unsupported(field: &str, problem: &str) -> (String, Problem) {
    (field.to_owned(), Problem::Unsupported(problem.to_owned()))
}

fn optional(text: &str, field: &str) -> Found<Option<Selector>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Selector::parse(text)
        .map(Some)
        .map_err(|error| unsupported(field, &error.to_string()))
}

/// Without types, by the rules that are there; ingress where there are none.
fn directions(spec: &Spec) -> Found<(bool, bool)> {
    for (index, name) in spec.types.iter().enumerate() {
        if name != "Ingress" && name != "Egress" {
            let field = format!("spec.types[{index}]");
            return Err((field, Problem::PolicyType(name.clone())));
        }
    }
    let has = |wanted: &str| spec.types.iter().any(|own| own == wanted);
    Ok(if spec.types.is_empty() {
        let egress = !spec.egress.is_empty();
        (!egress || !spec.ingress.is_empty(), egress)
    } else {
        (has("Ingress"), has("Egress"))
    })
}

/// A rule; `None` for one that only logs.
fn rule(
    spec: &RuleSpec,
    namespace: Option<&str>,
    path: String,
    text: &str,
) -> Found<Option<OrderedRule>> {
    let action = match spec.action.as_str() {
        "Allow" => Action::Allow,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        "Log" => return Ok(None),
        other => {
            let problem = format!("`{other}` is no action: write Allow, Deny, Pass or Log");
            return Err(unsupported(&format!("{path}.action"), &problem));
        }
    };
    let v6 = match spec.ip_version {
        None => None,
        Some(4) => Some(false),
        Some(6) => Some(true),
        Some(_) => return Err(unsupported(&format!("{path}.ipVersion"), "write 4 or 6")),
    };
    let criteria = Criteria {
        v6,
        protocol: protocol(spec.protocol.as_ref(), || format!("{path}.protocol"))?,
        not_protocol: protocol(spec.not_protocol.as_ref(), || format!("{path}.notProtocol"))?,
        icmp: spec.icmp.as_ref().map(IcmpKind::from),
        not_icmp: spec.not_icmp.as_ref().map(IcmpKind::from),
        source: entity(&spec.source, namespace, &format!("{path}.source"))?,
        destination: entity(&spec.destination, namespace, &format!("{path}.destination"))?,
    };
    Ok(Some(OrderedRule {
        action,
        path: path.into(),
        text: text.into(),
        matcher: Matcher::Calico(Box::new(criteria)),
    }))
}

fn protocol(
    spec: Option<&ProtocolSpec>,
    field: impl FnOnce() -> String,
) -> Found<Option<Protocol>> {
    Ok(match spec {
        None => None,
        Some(ProtocolSpec::Number(number)) => Some(Protocol::from_number(*number)),
        Some(ProtocolSpec::Name(name)) => Some(match name.as_str() {
            "UDPLite" => Protocol::Other(136),
            name => match (Protocol::from_name(name), name.parse()) {
                (Some(protocol), _) => protocol,
                (None, Ok(number)) => Protocol::from_number(number),
                (None, Err(_)) => {
                    let problem = format!("`{name}` is no protocol");
                    return Err((field(), Problem::Unsupported(problem)));
                }
            },
        }),
    })
}

fn entity(spec: &EntitySpec, namespace: Option<&str>, path: &str) -> Found<Entity> {
    let selector = optional(&spec.selector, &format!("{path}.selector"))?;
    let namespaces = optional(
        &spec.namespace_selector,
        &format!("{path}.namespaceSelector"),
    )?;
    let scope = match (namespaces, namespace) {
        (Some(Selector::Global), _) => Scope::Global,
        (Some(namespaces), _) => Scope::Namespaces(namespaces),
        (None, Some(own)) if selector.is_some() => Scope::Namespace(own.to_owned()),
        (None, _) => Scope::Everything,
    };
    let nets = |texts: &[String], leaf: &str| -> Found<Box<[IpNet]>> {
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| net(text, || format!("{path}.{leaf}[{index}]")))
            .collect()
    };
    let ports = |specs: &[PortSpec], leaf: &str| -> Found<Box<[PortNumber]>> {
        specs
            .iter()
            .enumerate()
            .map(|(index, spec)| port(spec, || format!("{path}.{leaf}[{index}]")))
            .collect()
    };
    Ok(Entity {
        nets: (!spec.nets.is_empty())
            .then(|| nets(&spec.nets, "nets"))
            .transpose()?,
        not_nets: nets(&spec.not_nets, "notNets")?,
        selector,
        not_selector: optional(&spec.not_selector, &format!("{path}.notSelector"))?,
        scope,
        ports: (!spec.ports.is_empty())
            .then(|| ports(&spec.ports, "ports"))
            .transpose()?,
        not_ports: ports(&spec.not_ports, "notPorts")?,
    })
}

/// A network; an address alone is one of one.
pub(super) fn net(text: &str, field: impl FnOnce() -> String) -> Found<IpNet> {
    text.parse::<IpNet>()
        .map(|net| net.trunc())
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_: std::net::AddrParseError| (field(), Problem::Cidr(text.to_owned())))
}

fn port(spec: &PortSpec, field: impl FnOnce() -> String) -> Found<PortNumber> {
    let text = match spec {
        PortSpec::Number(number) => return Ok(PortNumber::Range(*number, *number)),
        PortSpec::Text(text) => text,
    };
    if let Ok(number) = text.parse() {
        return Ok(PortNumber::Range(number, number));
    }
    match text.split_once(':') {
        None => Ok(PortNumber::Named(text.as_str().into())),
        Some((first, last)) => match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(PortNumber::Range(first, last)),
            _ => {
                let problem = format!(
                    "`{text}` is no range of ports: write the lower one, a colon, the higher one"
                );
                Err((field(), Problem::Unsupported(problem)))
            }
        },
    }
}
