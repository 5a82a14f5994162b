//! From `networking.k8s.io/v1` to the compiled form.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    CompileError, Direction, Peer, Policy, PolicyKind, PolicyRef, Port, PortNumber, Problem, Rule,
};
use crate::intern::Symbols;
use crate::model::{Change, Protocol};
use crate::selector::Selector;
use crate::yaml;

type Compiled<T> = Result<T, (String, Problem)>;

impl PolicyRef {
    /// The name of an API object; the namespace is `default` where the object names none, as `kubectl`
    /// reads it.
    pub(crate) fn of(policy: &NetworkPolicy) -> Self {
        let metadata = &policy.metadata;
        Self::new(
            PolicyKind::NetworkPolicy,
            Some(
                metadata
                    .namespace
                    .clone()
                    .unwrap_or_else(|| "default".into()),
            ),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl Policy {
    /// Compiles a policy.
    pub(crate) fn compile(
        policy: &NetworkPolicy,
        symbols: &mut impl Symbols,
    ) -> Result<Self, CompileError> {
        let id = PolicyRef::of(policy);
        let error = |(field, problem)| CompileError {
            kind: PolicyKind::NetworkPolicy,
            policy: id.to_string(),
            field,
            problem,
        };
        if id.name().is_empty() {
            return Err(error(("metadata.name".into(), Problem::Missing)));
        }
        let Some(spec) = &policy.spec else {
            return Err(error(("spec".into(), Problem::Missing)));
        };
        let (selector, ingress, egress) = compile_spec(spec, symbols).map_err(error)?;
        Ok(Self {
            id,
            selector,
            ingress,
            egress,
            broken: None,
            source: Arc::new(spec.clone()),
            changed: Change::of(&policy.metadata),
        })
    }

    /// What stands in for a policy that does not compile: it selects what its selector says, or the
    /// whole namespace where that is what is wrong, in the directions its types say, and may allow
    /// anything.
    pub(crate) fn broken(
        policy: &NetworkPolicy,
        error: CompileError,
        symbols: &mut impl Symbols,
    ) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let selector = spec
            .pod_selector
            .as_ref()
            .and_then(|s| Selector::compile(s, "", symbols).ok())
            .unwrap_or_default();
        let (ingress, egress) = directions(&spec).unwrap_or((true, true));
        Self {
            id: PolicyRef::of(policy),
            selector,
            ingress: ingress.then(Box::default),
            egress: egress.then(Box::default),
            broken: Some(Arc::new(error)),
            source: Arc::new(spec),
            changed: Change::of(&policy.metadata),
        }
    }
}

/// Whether a policy isolates for ingress and for egress.
///
/// pkg/apis/networking/v1/defaults.go: without types, Ingress always, Egress where there are rules.
fn directions(spec: &NetworkPolicySpec) -> Compiled<(bool, bool)> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    for (i, name) in types.iter().enumerate() {
        if name != "Ingress" && name != "Egress" {
            return Err((
                format!("spec.policyTypes[{i}]"),
                Problem::PolicyType(name.clone()),
            ));
        }
    }
    let has = |direction: Direction| types.iter().any(|t| t == direction.policy_type());
    Ok(if types.is_empty() {
        (true, spec.egress.iter().flatten().next().is_some())
    } else {
        (has(Direction::Ingress), has(Direction::Egress))
    })
}

type Spec = (Selector, Option<Box<[Rule]>>, Option<Box<[Rule]>>);

fn compile_spec(spec: &NetworkPolicySpec, symbols: &mut impl Symbols) -> Compiled<Spec> {
    let selector = match &spec.pod_selector {
        Some(selector) => Selector::compile(selector, "spec.podSelector", symbols)?,
        None => Selector::default(),
    };
    let (ingress, egress) = directions(spec)?;
    // Rules of a direction the policy does not isolate are compiled too: they must still be valid.
    let mut ingress_compiled = Vec::new();
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{i}]");
        ingress_compiled.push(compile_rule(
            path,
            "from",
            rule.from.as_deref(),
            rule.ports.as_deref(),
            symbols,
        )?);
    }
    let mut egress_compiled = Vec::new();
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{i}]");
        egress_compiled.push(compile_rule(
            path,
            "to",
            rule.to.as_deref(),
            rule.ports.as_deref(),
            symbols,
        )?);
    }
    Ok((
        selector,
        ingress.then(|| ingress_compiled.into()),
        egress.then(|| egress_compiled.into()),
    ))
}

fn compile_rule(
    path: String,
    peers_field: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    symbols: &mut impl Symbols,
) -> Compiled<Rule> {
    // Absent and empty mean the same here: any.
    let peers = peers.filter(|peers| !peers.is_empty());
    let ports = ports.filter(|ports| !ports.is_empty());
    let peers_text = peers.map_or_else(String::new, |p| {
        format!("{peers_field}: {}", yaml::flow(&p))
    });
    let ports_text = ports.map_or_else(String::new, |p| format!("ports: {}", yaml::flow(&p)));
    let peers = match peers {
        Some(peers) => Some(
            peers
                .iter()
                .enumerate()
                .map(|(i, peer)| compile_peer(peer, &format!("{path}.{peers_field}[{i}]"), symbols))
                .collect::<Compiled<_>>()?,
        ),
        None => None,
    };
    let ports = match ports {
        Some(ports) => Some(
            ports
                .iter()
                .enumerate()
                .map(|(i, port)| compile_port(port, &format!("{path}.ports[{i}]")))
                .collect::<Compiled<_>>()?,
        ),
        None => None,
    };
    Ok(Rule {
        path: path.into(),
        peers,
        ports,
        peers_text: peers_text.into(),
        ports_text: ports_text.into(),
    })
}

fn compile_peer(
    peer: &NetworkPolicyPeer,
    path: &str,
    symbols: &mut impl Symbols,
) -> Compiled<Peer> {
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            return Err((path.to_owned(), Problem::MixedPeer));
        }
        return compile_block(block, path);
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return Err((path.to_owned(), Problem::EmptyPeer));
    }
    let mut selector = |selector: &Option<_>, leaf: &str| match selector {
        Some(s) => Selector::compile(s, &format!("{path}.{leaf}"), symbols).map(Some),
        None => Ok(None),
    };
    Ok(Peer::Pods {
        namespaces: selector(&peer.namespace_selector, "namespaceSelector")?,
        pods: selector(&peer.pod_selector, "podSelector")?.unwrap_or_default(),
    })
}

fn compile_block(block: &IPBlock, path: &str) -> Compiled<Peer> {
    let parse = |text: &str, field: String| {
        text.parse::<IpNet>()
            .map(|net| net.trunc()) // the API takes host bits and ignores them
            .map_err(|_| (field, Problem::Cidr(text.to_owned())))
    };
    let cidr = parse(&block.cidr, format!("{path}.ipBlock.cidr"))?;
    let except = block
        .except
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, text)| parse(text, format!("{path}.ipBlock.except[{i}]")))
        .collect::<Compiled<_>>()?;
    Ok(Peer::Ip { cidr, except })
}

fn compile_port(port: &NetworkPolicyPort, path: &str) -> Compiled<Port> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(other) => {
            return Err((
                format!("{path}.protocol"),
                Problem::Protocol(other.to_owned()),
            ));
        }
    };
    let number = |value: i32, leaf: &str| match u16::try_from(value) {
        Ok(number) if number != 0 => Ok(number),
        _ => Err((format!("{path}.{leaf}"), Problem::PortNumber(value))),
    };
    let number = match (&port.port, port.end_port) {
        (None, None) => PortNumber::Any,
        (Some(IntOrString::Int(first)), None) => {
            let first = number(*first, "port")?;
            PortNumber::Range(first, first)
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            let (first, last) = (number(*first, "port")?, number(last, "endPort")?);
            if last < first {
                return Err((
                    format!("{path}.endPort"),
                    Problem::EndPortBelow {
                        end: last,
                        port: first,
                    },
                ));
            }
            PortNumber::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) if is_port_name(name) => {
            PortNumber::Named(name.as_str().into())
        }
        (Some(IntOrString::String(name)), None) => {
            return Err((format!("{path}.port"), Problem::PortName(name.clone())));
        }
        (_, Some(_)) => return Err((format!("{path}.endPort"), Problem::EndPortAlone)),
    };
    Ok(Port { protocol, number })
}

/// Any name a container port could carry; a quoted number is a mistake the API server refuses too.
fn is_port_name(name: &str) -> bool {
    name.bytes().any(|b| b.is_ascii_alphabetic())
}
