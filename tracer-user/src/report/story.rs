//! The incident in a sentence, and each finding in a few.

use super::finding::Finding;
use super::key::{Party, Policy, Standing};
use super::words::{listed, noun};
use crate::record::{Class, DropAction};

/// Whom a sentence is about; there are this many sentences at most.
const SUBJECTS: usize = 3;

/// Policies that a sentence names.
const POLICIES: usize = 3;

/// What happened, a sentence for each of those it befell; of findings with what matters most first.
pub(super) fn sentences(findings: &[Finding]) -> Vec<String> {
    let mut groups: Vec<(Party, Standing, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let (party, standing) = (befell(finding), finding.key.standing);
        match groups
            .iter_mut()
            .find(|(other, same, _)| *other == party && *same == standing)
        {
            Some((.., group)) => group.push(finding),
            None => groups.push((party, standing, vec![finding])),
        }
    }
    let more = groups.len().saturating_sub(SUBJECTS);
    let mut told: Vec<String> = groups
        .iter()
        .take(SUBJECTS)
        .map(|(party, standing, group)| sentence(party, *standing, group))
        .collect();
    if more > 0 {
        told.push(format!("And {more} more, below."));
    }
    told
}

fn sentence(party: &Party, standing: Standing, group: &[&Finding]) -> String {
    let mut nouns: Vec<String> = Vec::new();
    let mut policies: Vec<&Policy> = Vec::new();
    for finding in group {
        let noun = called(finding);
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
        for policy in &finding.key.policies {
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
    }
    let rejected = group.iter().all(|finding| is_rejected(finding));
    let done = if rejected { "rejected" } else { "dropped" };
    let who = pods(party, group);
    let nouns = listed(&nouns);
    match standing {
        Standing::Disagreement => {
            format!("{who}: {nouns} {done} although the policies allow it.")
        }
        Standing::Denied if policies.is_empty() => {
            format!("{who}: {nouns} {done}; denied by the policies.")
        }
        Standing::Denied => {
            let by = if policies.iter().any(|policy| policy.rule.is_some()) {
                "denied by"
            } else {
                "isolated by"
            };
            format!("{who}: {nouns} {done}; {by} {}.", named(&policies))
        }
        Standing::Unknown => {
            format!("{who}: {nouns} {done}; whether policies deny it is not known.")
        }
        Standing::Unasked => {
            format!("{who}: {nouns} {done}; recorded without a cluster's policies.")
        }
        Standing::NoPod => {
            format!("{who}: {nouns} {done}; no policy applies, since no pod is concerned.")
        }
        Standing::Passing => format!("{who}: {nouns} {done}; no policy is the cause."),
    }
}

/// Whose isolation it met.
pub(super) fn befell(finding: &Finding) -> Party {
    if finding.key.befell_server() {
        finding.key.server.clone()
    } else {
        finding.key.client.clone()
    }
}

/// What was dropped: with the kinds of the probes where it was probes.
pub(super) fn called(finding: &Finding) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for probe in finding.probes.iter() {
        if !kinds.contains(&probe.kind.as_str()) {
            kinds.push(&probe.kind);
        }
    }
    let what = match finding.key.class {
        Some(Class::KubeletProbe) if !kinds.is_empty() => format!("{} probes", listed(&kinds)),
        class => noun(class).to_owned(),
    };
    if finding.key.answer {
        format!("answers to {what}")
    } else {
        what
    }
}

/// Whether every sender was told.
pub(super) fn is_rejected(finding: &Finding) -> bool {
    finding
        .ways
        .iter()
        .all(|way| way.action == Some(DropAction::Reject))
}

/// `a/x, a/y and 2 more policies`.
pub(super) fn named<P: std::borrow::Borrow<Policy>>(policies: &[P]) -> String {
    let mut names: Vec<String> = policies
        .iter()
        .take(POLICIES)
        .map(|policy| policy.borrow().to_string())
        .collect();
    let more = policies.len().saturating_sub(POLICIES);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    listed(&names)
}

/// The pods of a party: `vault/vault-0..2` where they are numbered through.
fn pods(party: &Party, group: &[&Finding]) -> String {
    let mut pods: Vec<(&str, &str)> = Vec::new();
    let mut more = false;
    for finding in group {
        more |= finding.pods.rest().is_some();
        for (namespace, pod) in finding.pods.iter() {
            if !pods.contains(&(namespace, pod)) {
                pods.push((namespace, pod));
            }
        }
    }
    pods.sort_unstable_by(|a, b| (a.1.len(), a).cmp(&(b.1.len(), b)));
    match pods.as_slice() {
        [] => party.to_string(),
        _ if more => format!("{party} (over {} pods)", pods.len()),
        [(namespace, pod)] => format!("{namespace}/{pod}"),
        [(namespace, first), .., (_, last)] => {
            if let Some(last) = numbered(&pods) {
                return format!("{namespace}/{first}..{last}");
            }
            match pods.as_slice() {
                [_, _] => format!("{namespace}/{first} and {last}"),
                _ => format!("{party} ({} pods)", pods.len()),
            }
        }
    }
}

/// The last pod's number, where the pods are one namespace's `name-N`, `name-N+1`, ... .
fn numbered(pods: &[(&str, &str)]) -> Option<u32> {
    let split = |pod: &str| -> Option<(String, u32)> {
        let (name, number) = pod.rsplit_once('-')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let (namespace, first) = pods.first()?;
    let (name, mut last) = split(first)?;
    for (other, pod) in pods.get(1..)? {
        let (same, number) = split(pod)?;
        if other != namespace || same != name || Some(number) != last.checked_add(1) {
            return None;
        }
        last = number;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_are_numbered_through_are_a_range() {
        assert_eq!(
            numbered(&[("a", "x-0"), ("a", "x-1"), ("a", "x-2")]),
            Some(2)
        );
        assert_eq!(numbered(&[("a", "x-9"), ("a", "x-10")]), Some(10));
        for gap in [
            &[("a", "x-0"), ("a", "x-2")][..],
            &[("a", "x-0"), ("b", "x-1")],
            &[("a", "x-0"), ("a", "y-1")],
            &[("a", "x-7b9f"), ("a", "x-7b9g")],
        ] {
            assert_eq!(numbered(gap), None, "{gap:?}");
        }
    }
}
