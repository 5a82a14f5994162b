//! A verdict told to people.
//!
//! The text comes as lines of spans: whoever prints it may colour them by [`Style`] or print them plain.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{Cluster, Owner};
use crate::flow::{End, Flow};
use crate::model::ObjectRef;
use crate::policy::{Direction, PolicyKind};
use crate::verdict::{Failed, NearestMiss, Outcome, RuleRef, Side, SideVerdict, Verdict};
use crate::yaml;

/// What a span is, for colouring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// Running text.
    Plain,
    /// The first words of a part.
    Heading,
    /// A verdict: let through.
    Allowed,
    /// A verdict: stopped.
    Denied,
    /// A verdict: not known.
    Unknown,
    /// A policy's own YAML.
    Quote,
    /// The element of the YAML that failed.
    Mark,
    /// Aside.
    Dim,
}

/// A piece of text of one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The text, without line ends.
    pub text: String,
    /// Its style.
    pub style: Style,
}

/// A line of spans. `Display` prints it plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Span>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|span| f.write_str(&span.text))
    }
}

impl Line {
    fn new(text: impl Into<String>, style: Style) -> Self {
        Self::default().then(text, style)
    }

    fn then(mut self, text: impl Into<String>, style: Style) -> Self {
        self.0.push(Span {
            text: text.into(),
            style,
        });
        self
    }
}

/// Tells the verdict on a flow: both directions, every isolating policy, and the nearest rule quoted with
/// the element that failed and what it would have had to be.
pub fn lines(cluster: &Cluster, flow: &Flow, verdict: &Verdict) -> Vec<Line> {
    let mut out = Vec::new();
    let (word, style) = match verdict.verdict {
        Outcome::Allowed => ("ALLOWED", Style::Allowed),
        Outcome::Denied => ("DENIED", Style::Denied),
        Outcome::Unknown => ("UNKNOWN", Style::Unknown),
    };
    let port = match flow.port {
        Some(port) => format!(" port {port}/{}", flow.protocol),
        None => format!(" {}", flow.protocol),
    };
    out.push(
        Line::new(
            format!(
                "{} → {}{port}: ",
                end_text(cluster, &flow.from),
                end_text(cluster, &flow.to)
            ),
            Style::Heading,
        )
        .then(word, style),
    );
    if let Some(reason) = &verdict.reason {
        out.push(Line::new(format!("  {reason}"), Style::Plain));
    }
    if let Some(hop) = &verdict.service {
        out.push(Line::new(
            format!(
                "  through Service {}; policies judge its endpoints:",
                hop.id
            ),
            Style::Plain,
        ));
        for endpoint in &hop.endpoints {
            let end = end_text(cluster, &End::Ip(endpoint.ip));
            let (word, style) = match endpoint.verdict {
                Outcome::Allowed => ("allowed", Style::Allowed),
                Outcome::Denied => ("denied", Style::Denied),
                Outcome::Unknown => ("unknown", Style::Unknown),
            };
            out.push(
                Line::new(format!("    {end} port {}: ", endpoint.port), Style::Plain)
                    .then(word, style),
            );
        }
    }
    // The way the packet goes: out of the sender first.
    for direction in [Direction::Egress, Direction::Ingress] {
        side_lines(&mut out, cluster, flow, verdict, direction);
    }
    for note in &verdict.notes {
        out.push(Line::new(format!("note: {note}"), Style::Dim));
    }
    let detected = cluster.detected_profile();
    let because = if detected.name == verdict.profile {
        format!(" ({})", detected.because)
    } else {
        String::new()
    };
    out.push(Line::new(
        format!("judged by dataplane profile `{}`{because}", verdict.profile),
        Style::Dim,
    ));
    out
}

fn side_lines(
    out: &mut Vec<Line>,
    cluster: &Cluster,
    flow: &Flow,
    verdict: &Verdict,
    direction: Direction,
) {
    let (side, end) = match direction {
        Direction::Egress => (&verdict.egress, &flow.from),
        Direction::Ingress => (&verdict.ingress, &flow.to),
    };
    let (word, style) = match side.verdict {
        SideVerdict::Allowed => ("allowed", Style::Allowed),
        SideVerdict::Denied => ("denied", Style::Denied),
        SideVerdict::NotIsolated => ("not isolated", Style::Allowed),
        SideVerdict::Unknown => ("unknown", Style::Unknown),
    };
    // Behind a Service it is the endpoint with the verdict shown that is judged.
    let endpoint = verdict
        .service
        .iter()
        .flat_map(|hop| &hop.endpoints)
        .find(|endpoint| endpoint.verdict == verdict.verdict)
        .map(|endpoint| End::Ip(endpoint.ip));
    let end = match (direction, &endpoint) {
        (Direction::Ingress, Some(endpoint)) => endpoint,
        _ => end,
    };
    let whose = end_text(cluster, end);
    let heading = format!("{} of {whose}: ", direction.as_str());
    out.push(Line::new(heading, Style::Heading).then(word, style));
    let is_pod = pod_or_ip(cluster, end).is_ok();
    if let Some(rule) = &side.denied_by {
        denied_lines(out, cluster, rule);
        return;
    }
    isolation_lines(out, side, direction, is_pod);
    for rule in &side.allowed_by {
        out.push(Line::new(
            format!(
                "  allowed by {}{} {}",
                kind_word(rule),
                rule.policy,
                rule.rule
            ),
            Style::Plain,
        ));
    }
    if let Some(exemption) = side.exemption {
        let text = format!("  no rule lets it through, but {}", exemption.as_sentence());
        out.push(Line::new(text, Style::Plain));
    }
    if let Some(miss) = &side.nearest_miss {
        let other = match direction {
            Direction::Ingress => &flow.from,
            Direction::Egress => endpoint.as_ref().unwrap_or(&flow.to),
        };
        miss_lines(out, cluster, flow, miss, other, direction);
    }
}

/// Of a policy that is no NetworkPolicy: its kind.
fn kind_word(rule: &RuleRef) -> String {
    match rule.policy.kind() {
        PolicyKind::NetworkPolicy => String::new(),
        other => format!("{} ", other.as_str()),
    }
}

fn denied_lines(out: &mut Vec<Line>, cluster: &Cluster, rule: &RuleRef) {
    let rank = if cluster.overrules_network_policies(rule) {
        "no NetworkPolicy can override it"
    } else {
        "a NetworkPolicy that isolates the pod and allows this would be asked first"
    };
    let text = format!(
        "  denied by {}{} {}; {rank}:",
        kind_word(rule),
        rule.policy,
        rule.rule
    );
    out.push(Line::new(text, Style::Plain));
    if let Some(words) = cluster.ordered_rule_text(rule) {
        out.push(Line::new("  > ", Style::Mark).then(words, Style::Mark));
    }
}

fn isolation_lines(out: &mut Vec<Line>, side: &Side, direction: Direction, is_pod: bool) {
    let names: Vec<String> = side.isolating.iter().map(ToString::to_string).collect();
    let text = match names.as_slice() {
        [] if side.verdict == SideVerdict::Unknown || !side.allowed_by.is_empty() => return,
        [] if !is_pod => "  no pod: no policy applies to it".to_owned(),
        [] => format!(
            "  no policy isolates it for {}: everything may pass",
            direction.as_str()
        ),
        [one] => format!("  isolated by {one}"),
        many => {
            let jointly = match side.verdict {
                SideVerdict::Denied => ", which deny jointly what none of them allows",
                SideVerdict::Allowed | SideVerdict::NotIsolated | SideVerdict::Unknown => "",
            };
            let count = many.len();
            format!(
                "  isolated by {count} policies{jointly}: {}",
                many.join(", ")
            )
        }
    };
    out.push(Line::new(text, Style::Plain));
}

fn miss_lines(
    out: &mut Vec<Line>,
    cluster: &Cluster,
    flow: &Flow,
    miss: &NearestMiss,
    other: &End,
    direction: Direction,
) {
    let Some(rule) = &miss.rule else {
        let text = format!(
            "  no policy has a rule for {}: everything is denied ({})",
            direction.as_str(),
            miss.policy
        );
        out.push(Line::new(text, Style::Plain));
        return;
    };
    out.push(Line::new(
        format!(
            "  nearest is {} {rule}; its {} does not match:",
            miss.policy,
            what(miss.failed)
        ),
        Style::Plain,
    ));
    for (text, is_marked) in quote(cluster, miss, direction).unwrap_or_default() {
        let (gutter, style) = if is_marked {
            ("  > ", Style::Mark)
        } else {
            ("    ", Style::Quote)
        };
        out.push(Line::new(gutter, Style::Mark).then(text, style));
    }
    out.push(Line::new(format!("  got     {}", miss.got), Style::Plain));
    let needed = needed(cluster, flow, miss.failed, other, &miss.policy);
    out.push(Line::new(format!("  needed  {needed}"), Style::Plain));
}

const fn what(failed: Failed) -> &'static str {
    match failed {
        Failed::NoRules => "rule",
        Failed::Peer => "peer",
        Failed::Namespace => "namespace",
        Failed::Protocol => "protocol",
        Failed::Port => "port",
    }
}

/// The rule as YAML, each line with whether it belongs to the element that failed.
fn quote(
    cluster: &Cluster,
    miss: &NearestMiss,
    direction: Direction,
) -> Option<Vec<(String, bool)>> {
    let spec = cluster
        .policy(miss.policy.namespace()?, miss.policy.name())?
        .spec();
    let rule = miss.rule.as_deref()?;
    let index: usize = rule.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
    let (value, peers) = match direction {
        Direction::Ingress => (
            serde_json::to_value(spec.ingress.as_ref()?.get(index)?).ok()?,
            "from",
        ),
        Direction::Egress => (
            serde_json::to_value(spec.egress.as_ref()?.get(index)?).ok()?,
            "to",
        ),
    };
    let list = match miss.failed {
        Failed::Port | Failed::Protocol => "ports",
        Failed::Peer | Failed::Namespace | Failed::NoRules => peers,
    };
    let marked = format!("[0].{list}[{}]", miss.item);
    let listed = serde_json::Value::Array(vec![value]);
    Some(
        yaml::block(&listed, "")
            .into_iter()
            .map(|line| {
                let is_marked = line.is_within(&marked);
                (line.text, is_marked)
            })
            .collect(),
    )
}

/// What the element would have had to be.
fn needed(
    cluster: &Cluster,
    flow: &Flow,
    failed: Failed,
    other: &End,
    policy: &crate::PolicyRef,
) -> String {
    let in_namespace = |id: &ObjectRef| {
        let selector = serde_json::json!({
            "matchLabels": {"kubernetes.io/metadata.name": id.namespace.clone()}
        });
        format!("namespaceSelector: {}", yaml::flow(&selector))
    };
    match failed {
        Failed::Port => match flow.port {
            Some(port) => format!("port: {port}"),
            None => "a rule without ports".to_owned(),
        },
        Failed::Protocol if flow.protocol.has_ports() => format!("protocol: {}", flow.protocol),
        Failed::Protocol => "a rule without ports".to_owned(),
        Failed::NoRules => "a rule".to_owned(),
        Failed::Peer | Failed::Namespace => match pod_or_ip(cluster, other) {
            Ok(pod) => {
                let id = &pod.id;
                let elsewhere = policy.namespace() != Some(&id.namespace);
                if failed == Failed::Namespace {
                    return format!(
                        "{} beside its podSelector, in the same item",
                        in_namespace(id)
                    );
                }
                let labels = format!("a podSelector that matches {}", yaml::flow(&pod.labels));
                if elsewhere {
                    format!("{} and {labels}, in one item", in_namespace(id))
                } else {
                    labels
                }
            }
            Err(Some(ip)) => format!(
                "ipBlock: {{cidr: {}}}",
                yaml::scalar(&IpNet::from(ip).to_string())
            ),
            Err(None) => "an ipBlock with the node's address".to_owned(),
        },
    }
}

/// The pod that policies see at an end, or else its address.
fn pod_or_ip<'a>(cluster: &'a Cluster, end: &End) -> Result<&'a crate::model::Pod, Option<IpAddr>> {
    match end {
        End::Pod(id) => match cluster.pod_at(id) {
            Some(pod) if !pod.host_network => Ok(pod),
            Some(pod) => Err(pod.ips.first().copied()),
            None => Err(None),
        },
        End::Ip(ip) => match cluster.owner(*ip) {
            Owner::Pod(pod) => Ok(pod),
            Owner::Node(..) | Owner::Service(_) | Owner::External => Err(Some(*ip)),
        },
    }
}

fn end_text(cluster: &Cluster, end: &End) -> String {
    match end {
        End::Pod(id) => match cluster.pod_at(id) {
            Some(pod) if pod.host_network => {
                let node = pod.node.as_deref().unwrap_or("its node");
                format!("{id} (on the network of {node})")
            }
            _ => id.to_string(),
        },
        End::Ip(ip) => match cluster.owner(*ip) {
            Owner::Pod(pod) => format!("{} ({ip})", pod.id),
            Owner::Node(node, _) => format!("node {} ({ip})", node.name),
            Owner::Service(service) => format!("Service {} ({ip})", service.id),
            Owner::External => ip.to_string(),
        },
    }
}
