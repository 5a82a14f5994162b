//! What a drop has to say to those who look at the pod or the policy.

use std::fmt::Write as _;

use crate::record::{Direction, Drop, DropAction, Peer, PolicyVerdict};
use crate::sink::text;

/// The API's limit of `note`, in bytes.
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/staging/src/k8s.io/api/events/v1/types.go>
const LONGEST: usize = 1024;

/// Policies that are told, of those that isolate a pod jointly.
const POLICIES: usize = 4;

/// Whom an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `kubectl describe pod` asks for Events by it.
    pub(super) uid: Option<String>,
}

/// What of an Event tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    about: About,
    reason: String,
    action: &'static str,
}

/// One Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) about: About,
    /// In CamelCase, as the alert on the same traffic is named: `KubeletProbeDropped`.
    pub(super) reason: String,
    /// `DropIngress`, `RejectEgress`, ...
    pub(super) action: &'static str,
    pub(super) text: String,
}

impl Note {
    pub(super) fn key(&self) -> Key {
        Key {
            about: self.about.clone(),
            reason: self.reason.clone(),
            action: self.action,
        }
    }
}

/// The notes of a drop: on the pod it befell, and on the policies that isolate it. None where it is not known
/// that a policy has to do with it, or the pod is another node's, whose own agent tells.
pub(super) fn notes(drop: &Drop, node: &str) -> Vec<Note> {
    let Some((direction, policy)) = drop.direction.zip(drop.policy.as_ref()) else {
        return Vec::new();
    };
    let (own, other) = match direction {
        Direction::Ingress => (&drop.destination, &drop.source),
        Direction::Egress => (&drop.source, &drop.destination),
    };
    let Some((own, other)) = own.as_ref().zip(other.as_ref()) else {
        return Vec::new();
    };
    let Some(pod) = about_pod(own).filter(|_| own.node.as_deref() == Some(node)) else {
        return Vec::new();
    };
    let action = match (drop.drop.action, direction) {
        (Some(DropAction::Reject), Direction::Ingress) => "RejectIngress",
        (Some(DropAction::Reject), Direction::Egress) => "RejectEgress",
        (_, Direction::Ingress) => "DropIngress",
        (_, Direction::Egress) => "DropEgress",
    };
    let what = what(drop, direction, other);
    // What fits together with it, then what to do.
    let mut rest = String::new();
    for sentence in drop.notes.iter().chain(&drop.hint) {
        let _ = write!(rest, "; {sentence}");
    }
    let note = |about, reason: &str, text: String| Note {
        about,
        reason: reason.to_owned(),
        action,
        text: shortened(text),
    };
    let class = drop.class.map_or("policy", |class| class.as_str());
    let reason = format!("{}Dropped", camel(class));
    match policy.verdict {
        PolicyVerdict::Allowed if drop.is_disagreement() => {
            let text = format!("{what}, although the policies allow it{rest}");
            vec![note(pod, "DropDisagreesWithPolicies", text)]
        }
        PolicyVerdict::Allowed | PolicyVerdict::Unknown => Vec::new(),
        PolicyVerdict::Denied => {
            let by = match &policy.denied_by {
                Some(rule) => format!("denied by {} {}", rule.policy.kind, rule.policy.name),
                None => format!("no rule of {} allows it", text::policy(Some(policy))),
            };
            let name = format!("{}/{}", pod.namespace, pod.name);
            let mut notes = vec![note(pod, &reason, format!("{what}: {by}{rest}"))];
            let policies = policy
                .isolating
                .iter()
                .filter(|policy| policy.kind == "NetworkPolicy");
            for isolating in policies.take(POLICIES) {
                let about = About {
                    kind: "NetworkPolicy",
                    api_version: "networking.k8s.io/v1",
                    namespace: isolating.namespace.clone().unwrap_or_default(),
                    name: isolating.name.clone(),
                    uid: None,
                };
                notes.push(note(about, &reason, format!("pod {name}: {what}{rest}")));
            }
            notes
        }
    }
}

fn about_pod(peer: &Peer) -> Option<About> {
    Some(About {
        kind: "Pod",
        api_version: "v1",
        namespace: peer.namespace.clone()?,
        name: peer.pod.clone()?,
        uid: peer.uid.clone(),
    })
}

/// `egress to master(192.168.1.100):6443 TCP rejected`.
fn what(drop: &Drop, direction: Direction, other: &Peer) -> String {
    let done = match drop.drop.action {
        Some(DropAction::Reject) => "rejected",
        _ => "dropped",
    };
    let mut text = match direction {
        Direction::Egress => format!("egress to {}", text::destination(Some(other))),
        Direction::Ingress => format!("ingress from {}", text::source(Some(other))),
    };
    if direction == Direction::Ingress
        && let Some(port) = drop.destination.as_ref().and_then(|end| end.port)
    {
        let _ = write!(text, " to port {port}");
    }
    let _ = write!(text, " {} {done}", text::protocol(drop));
    if let Some(symptom) = &drop.symptom {
        let _ = write!(text, " ({symptom})");
    }
    text
}

/// `kubelet-probe` as `KubeletProbe`, `apiserver-egress` as `ApiServerEgress`.
pub(super) fn camel(words: &str) -> String {
    words
        .split('-')
        .flat_map(|word| {
            let word = match word {
                "apiserver" => "apiServer",
                word => word,
            };
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters)
        })
        .collect()
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST - "…".len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
