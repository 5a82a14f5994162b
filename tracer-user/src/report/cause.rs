//! Who, whom, how and why of a finding, in sentences.

use std::net::IpAddr;

use super::finding::Finding;
use super::key::{Party, Standing};
use super::story::{befell, is_rejected, named};
use super::words::listed;
use crate::record::{Class, Direction, DropAction};

/// Who opened what to whom: `kubelet → vault/vault:8200/TCP`.
pub(super) fn flow(finding: &Finding) -> String {
    let key = &finding.key;
    let client = match (key.class, &key.client) {
        (Some(Class::KubeletProbe), Party::Nodes) => "kubelet".to_owned(),
        (_, Party::Nodes) if finding.clients.len() == 1 => {
            finding.clients.iter().map(String::as_str).collect()
        }
        (_, client) => client.to_string(),
    };
    let server = match (&key.server, key.port) {
        (Party::Address(IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
        (server, Some(port)) => format!("{server}:{port}"),
        (server, None) => server.to_string(),
    };
    let protocol = match (&key.protocol, key.port) {
        (Some(protocol), Some(_)) => format!("/{protocol}"),
        (Some(protocol), None) => format!(" {protocol}"),
        (None, _) => String::new(),
    };
    let answers = if key.answer { " (answers)" } else { "" };
    format!("{client} → {server}{protocol}{answers}")
}

/// What the policies say, in two or three words.
pub(super) const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Disagreement => "policies allow it",
        Standing::Denied => "policies deny it",
        Standing::Unknown => "verdict unknown",
        Standing::Unasked => "policies not asked",
        Standing::NoPod => "no policy applies",
        Standing::Passing => "not a policy",
    }
}

/// How it was dropped: `Silently dropped at tc egress on node-a.`
pub(super) fn how(finding: &Finding) -> String {
    let dropped = finding
        .ways
        .iter()
        .all(|way| way.action == Some(DropAction::Drop));
    let mut text = if is_rejected(finding) {
        let replies: Vec<&str> = finding
            .ways
            .iter()
            .filter_map(|way| way.reply.as_deref())
            .collect();
        if replies.is_empty() {
            "Rejected".to_owned()
        } else {
            format!("Rejected with {}", listed(&distinct(replies)))
        }
    } else if dropped {
        "Silently dropped".to_owned()
    } else {
        "Dropped".to_owned()
    };
    let hooks = distinct(
        finding
            .ways
            .iter()
            .filter_map(|way| way.hook.as_deref())
            .collect(),
    );
    if !hooks.is_empty() {
        text.push_str(" at ");
        text.push_str(&listed(&hooks));
    }
    let nodes: Vec<_> = finding.nodes.iter().collect();
    match nodes.as_slice() {
        [] => {}
        nodes if finding.nodes.rest().is_some() || nodes.len() > 3 => {
            text.push_str(" on many nodes");
        }
        nodes => {
            text.push_str(" on ");
            text.push_str(&listed(nodes));
        }
    }
    text.push('.');
    text
}

/// Why it was dropped.
pub(super) fn why(finding: &Finding) -> String {
    let policies = finding.key.policies.as_slice();
    let one = policies.len() == 1;
    match finding.key.standing {
        Standing::Disagreement => "The policies allow this, and the node dropped it all the same. No policy can cure \
                                   that: look for a stale rule, a bug of the CNI or the host's firewall."
            .to_owned(),
        Standing::Denied => match policies {
            [] => "The policies deny it.".to_owned(),
            [policy] if let Some(rule) = &policy.rule => format!("{policy} {rule} denies it."),
            _ => {
                let side = finding.key.direction.map_or("", |direction| match direction {
                    Direction::Ingress => " for ingress",
                    Direction::Egress => " for egress",
                });
                format!(
                    "{} {} {}{side}, and no rule of {} lets this through.",
                    named(policies),
                    if one { "isolates" } else { "together isolate" },
                    befell(finding),
                    if one { "it" } else { "theirs" },
                )
            }
        },
        Standing::Unknown => "Whether the policies deny it is not known.".to_owned(),
        Standing::Unasked => {
            "It was recorded without the cluster's policies: pass --cluster to have them asked.".to_owned()
        }
        Standing::NoPod => "No pod is at either end, so that no NetworkPolicy has a say: look at the host's firewall and at \
                            routing."
            .to_owned(),
        Standing::Passing => "The policies allow it.".to_owned(),
    }
}

fn distinct(words: Vec<&str>) -> Vec<&str> {
    let mut distinct = Vec::with_capacity(words.len());
    for word in words {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    distinct
}
