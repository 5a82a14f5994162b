//! Traffic classes in plain words.

use crate::record::Class;

/// What a class of traffic is called in a sentence.
pub(super) const fn noun(class: Option<Class>) -> &'static str {
    match class {
        Some(Class::KubeletProbe) => "health probes",
        Some(Class::ApiserverEgress) => "API server calls",
        Some(Class::Dns) => "DNS lookups",
        Some(Class::Webhook) => "admission webhook calls",
        Some(Class::AggregatedApi) => "aggregated API calls",
        Some(Class::MetricsScrape) => "metrics scrapes",
        Some(Class::IngressController) => "requests through the ingress controller",
        Some(Class::NodePort) => "requests through a NodePort",
        Some(Class::StatefulsetPeer) => "traffic among the StatefulSet's own pods",
        Some(Class::NodeToPod) => "traffic from nodes",
        Some(Class::PodToNode) => "traffic to nodes",
        Some(Class::PodToPod) => "traffic between pods",
        Some(Class::CloudMetadata) => "cloud metadata requests",
        Some(Class::IcmpControl) => "ICMP control messages",
        Some(Class::ConntrackInvalid) => "packets of connections that conntrack lost",
        Some(Class::PolicyRace) => "packets ahead of the policies' rules",
        Some(Class::External) => "traffic with the outside",
        None => "traffic",
    }
}

/// What it really was, for whoever has not met it before.
pub(super) const fn meaning(class: Option<Class>) -> &'static str {
    match class {
        Some(Class::KubeletProbe) => {
            "Health probes come from the kubelet, a process on the pod's own node. Their source is an address of \
             the node, which no podSelector can match: only an ipBlock can."
        }
        Some(Class::ApiserverEgress) => {
            "The pod called the Kubernetes API. On K3s the API server is a process on the master node and no pod, so \
             no podSelector can match it: only an ipBlock can, at the port behind the Service."
        }
        Some(Class::Dns) => {
            "The pod asked the cluster's DNS for a name. Without an answer it cannot find anything by name, so other \
             things seem broken."
        }
        Some(Class::Webhook) => {
            "The API server called an admission webhook. While it cannot, nobody can create or change the objects \
             concerned. Calls come from a node's address, which no podSelector can match."
        }
        Some(Class::AggregatedApi) => {
            "The API server called a server that serves a part of the Kubernetes API for it, such as metrics-server. \
             Calls come from a node's address, which no podSelector can match."
        }
        Some(Class::MetricsScrape) => {
            "A metrics collector fetched metrics. While it cannot, dashboards and alerts see nothing."
        }
        Some(Class::IngressController) => {
            "The ingress controller passed on a request from outside. While it cannot, its clients see errors of the \
             gateway."
        }
        Some(Class::NodePort) => {
            "Someone outside came in through a NodePort. On the way a node replaced the sender's address by its own, \
             which no podSelector can match."
        }
        Some(Class::StatefulsetPeer) => {
            "Pods of one StatefulSet talked to each other, as clusters of databases must, in both directions."
        }
        Some(Class::NodeToPod) => {
            "A process on a node, or a pod in the host's network, called the pod. It comes from a node's address, \
             which no podSelector can match."
        }
        Some(Class::PodToNode) => {
            "The pod called a process on a node, or a pod in the host's network. No podSelector can match that: only an \
             ipBlock can."
        }
        Some(Class::PodToPod) => "A pod called another pod.",
        Some(Class::CloudMetadata) => {
            "The pod asked the cloud's metadata service, which hands out the machine's credentials. Blocking it is \
             usually right."
        }
        Some(Class::IcmpControl) => {
            "ICMP that reports errors or keeps links alive. No NetworkPolicy can name ICMP: the cause is the CNI or \
             the host's firewall."
        }
        Some(Class::ConntrackInvalid) => {
            "Part of a connection that policies allow and that connection tracking does not know, or no longer. No \
             policy is the cause."
        }
        Some(Class::PolicyRace) => {
            "A pod or a policy was so new that the node had likely not caught up with it. It passes by itself."
        }
        Some(Class::External) => "One end is neither a pod nor a node of the cluster.",
        None => "It is not known what kind of traffic this was.",
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 packet`, `1,234 packets`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed<S: AsRef<str>>(words: &[S]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_read_well() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "packet", "packets"), "1 packet");
        assert_eq!(counted(2000, "packet", "packets"), "2,000 packets");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed::<&str>(&[]), "");
    }
}
