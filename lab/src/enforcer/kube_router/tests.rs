//! The emitter against what K3s's kube-router v2.6.3-k3s1 really installed for the same objects.

use std::collections::BTreeMap;

use super::emit::{Input, Ruleset};
use super::names::Ip;
use crate::policy::{PodFacts, Policies};

const SAVED: &str = include_str!("golden/iptables-save.txt");
const SAVED_SETS: &str = include_str!("golden/ipset-save.txt");

/// The policy that was in force when the golden files were saved.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: vault-network-policy, namespace: vault}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: vault}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}}]}]
  egress: [{to: [{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}}]}]
";

fn pod(namespace: &str, name: &str, ip: &str, label: (&str, &str)) -> PodFacts {
    PodFacts {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]),
        ips: vec![ip.parse().unwrap()],
        ports: Vec::new(),
        cable: Some(format!("veth{name}")),
    }
}

/// The pods that were there.
fn pods() -> Vec<PodFacts> {
    let vault = ("app.kubernetes.io/name", "vault");
    vec![
        pod("vault", "vault-0", "10.42.0.10", vault),
        pod("vault", "vault-1", "10.42.0.11", vault),
        pod("default", "client", "10.42.0.12", ("app", "client")),
    ]
}

fn emit(policy: &str, pods: &[PodFacts], ip: Ip, services: &str) -> Ruleset {
    let resolved = Policies::parse(policy).unwrap().resolve(pods).unwrap();
    Ruleset::new(&Input {
        policies: &resolved,
        pods,
        ip,
        services,
        version: "1764000000000000000",
        exempts_node: true,
    })
}

/// Chains by name. Hashes that depend on the moment of the sync become what they stand for; jumps to
/// pods are sorted, as kube-router walks a map.
fn normalise(saved: &str) -> BTreeMap<String, Vec<String>> {
    let mut text = saved.to_owned();
    let word = |line: &str, before: &str| {
        let rest = line.split_once(before)?.1;
        let end = rest.find([' ', '"']).unwrap_or(rest.len());
        Some(rest[..end].to_owned())
    };
    for line in saved.lines() {
        let (from, to) = if let Some(pod) = word(line, "POD name:") {
            (word(line, " to chain KUBE-POD-FW-"), pod)
        } else if let Some(policy) = word(line, "run through nw policy ") {
            (word(line, "-j KUBE-NWPLCY-"), policy)
        } else {
            continue;
        };
        if let Some(hash) = from {
            text = text.replace(&hash, &to);
        }
    }
    let mut chains = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap();
            chains.entry(name.to_owned()).or_default();
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap();
            chains.get_mut(chain).unwrap().push(rule.to_owned());
        }
    }
    for (name, rules) in &mut chains {
        if name.starts_with("KUBE-ROUTER-") {
            rules.sort();
        }
    }
    chains
}

#[test]
fn chains_are_those_of_a_real_node() {
    let emitted = emit(POLICY, &pods(), Ip::V4, "10.43.0.0/16").restore();
    let (ours, theirs) = (normalise(&emitted), normalise(SAVED));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (chain, rules) in &theirs {
        assert!(!rules.is_empty(), "{chain} of the golden file is empty");
        assert_eq!(&ours[chain], rules, "{chain}");
    }
}

#[test]
fn sets_are_those_of_a_real_node() {
    let mut sets = BTreeMap::<&str, Vec<&str>>::new();
    for line in SAVED_SETS.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("create"), Some(name), Some(kind)) => sets.entry(name).or_default().push(kind),
            (Some("add"), Some(name), Some(_)) => {
                let member = line.splitn(3, ' ').last().unwrap();
                sets.entry(name).or_default().push(member);
            }
            _ => panic!("{line}"),
        }
    }
    let ours = emit(POLICY, &pods(), Ip::V4, "10.43.0.0/16").sets;
    assert_eq!(sets.len(), ours.len());
    for (name, mut words) in sets {
        let set = &ours[name];
        let mut own: Vec<_> = set.members.iter().map(String::as_str).collect();
        own.push(set.kind);
        own.sort_unstable();
        words.sort_unstable();
        assert_eq!(own, words, "{name}");
    }
}

#[test]
fn ports_blocks_and_names_become_matches() {
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: vault}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]
    ports: [{port: https}]
  egress:
  - to: [{ipBlock: {cidr: 192.168.1.100/32}}]
    ports: [{port: 6443}, {port: 53, endPort: 54, protocol: UDP}]
";
    let rules = emit(policy, &PodFacts::planned(), Ip::V4, "10.43.0.0/16");
    let chain = rules
        .chains
        .iter()
        .find(|(name, _)| name.starts_with("KUBE-NWPLCY-") && !name.ends_with(['T', 'N']));
    let lines: Vec<_> = chain
        .unwrap()
        .1
        .iter()
        .filter(|rule| rule.contains("-j MARK"))
        .collect();
    let has = |text: &str| lines.iter().any(|rule| rule.contains(text));
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        has("-p tcp") && has("-m tcp --dport 8200 -j MARK"),
        "{lines:#?}"
    );
    assert!(has("-m tcp --dport 6443 -j MARK"), "{lines:#?}");
    assert!(has("-m udp --dport 53:54 -j MARK"), "{lines:#?}");
    let blocks = rules
        .sets
        .values()
        .find(|set| set.members.len() == 3)
        .unwrap();
    assert_eq!(blocks.kind, "hash:net");
    assert_eq!(
        blocks.members,
        [
            "0.0.0.0/1 timeout 0",
            "128.0.0.0/1 timeout 0",
            "10.0.0.0/8 timeout 0 nomatch"
        ]
    );
}
