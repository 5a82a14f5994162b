//! Every lint rule finds its mistake, and leaves alone what is right.

mod closed;
#[path = "../common/mod.rs"]
mod common;
mod lonely;
mod rules;

use std::collections::BTreeSet;

use tracer_policy::lint::{Finding, RULES, lint};
use tracer_policy::model::{ApiCall, ApiCallKind};
use tracer_policy::{Cluster, Profile};

const INCIDENT: &str = include_str!("../incident/cluster.yaml");
const BROKEN: &str = include_str!("../incident/broken-policy.yaml");
const FINAL: &str = include_str!("../incident/final-policy.yaml");

fn incident(extra: &str) -> Cluster {
    let mut cluster = common::cluster(INCIDENT);
    common::apply(&mut cluster, extra);
    cluster
}

fn policy(spec: &str) -> Cluster {
    incident(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: vault}}, spec: {{{spec}}}}}"
    ))
}

fn ids(cluster: &Cluster) -> BTreeSet<&'static str> {
    lint(cluster).iter().map(|f| f.rule.id).collect()
}

fn found(cluster: &Cluster, id: &str) -> Finding {
    let mut all = lint(cluster).into_iter().filter(|f| f.rule.id == id);
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        other => panic!("{id}: {other:?}"),
    }
}

#[test]
fn the_broken_policy_closes_probes_api_server_and_dns() {
    let cluster = incident(BROKEN);
    assert_eq!(
        ids(&cluster),
        BTreeSet::from(["apiserver-blocked", "dns-blocked", "probe-blocked"])
    );
    let probe = found(&cluster, "probe-blocked");
    assert_eq!(probe.policy.to_string(), "vault/vault-policy");
    assert!(probe.message.contains("port 8200/TCP"), "{}", probe.message);
    assert!(
        found(&cluster, "apiserver-blocked")
            .message
            .contains("192.168.1.100:6443")
    );
    insta::assert_json_snapshot!("broken", lint(&cluster));
}

#[test]
fn the_final_policy_has_a_dns_rule_that_matches_nothing_and_a_wide_range() {
    let cluster = incident(FINAL);
    assert_eq!(
        ids(&cluster),
        BTreeSet::from(["dns-blocked", "peer-in-other-namespace", "wide-node-range"])
    );
    let peer = found(&cluster, "peer-in-other-namespace");
    assert_eq!(peer.field.as_deref(), Some("spec.egress[1].to[0]"));
    assert_eq!(
        peer.fix,
        "add `namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}` to the same item"
    );
    let wide = found(&cluster, "wide-node-range");
    assert_eq!(
        wide.field.as_deref(),
        Some("spec.ingress[1].from[0].ipBlock.cidr")
    );
}

#[test]
fn probes_follow_the_profile_and_either_of_the_nodes_addresses() {
    let mut cluster = incident(BROKEN);
    cluster.set_profile(Some(Profile::K3S));
    assert!(!ids(&cluster).contains("probe-blocked"));
    let gateway = "ingress: [{from: [{ipBlock: {cidr: 10.42.1.1/32}}], ports: [{port: 8200}]}]";
    assert!(!ids(&policy(gateway)).contains("probe-blocked"));
    let other_port = "ingress: [{from: [{ipBlock: {cidr: 10.42.1.1/32}}], ports: [{port: 8201}]}]";
    assert!(ids(&policy(other_port)).contains("probe-blocked"));
}

#[test]
fn dns_wants_both_protocols() {
    let dns = |ports: &str| {
        policy(&format!(
            "policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}], ports: [{ports}]}}]"
        ))
    };
    assert!(ids(&dns("{port: 53, protocol: UDP}")).contains("dns-udp-only"));
    let both = ids(&dns("{port: 53, protocol: UDP}, {port: 53}"));
    assert!(!both.iter().any(|id| id.starts_with("dns")), "{both:?}");
    assert!(ids(&dns("{port: 53}")).contains("dns-blocked"));
}

#[test]
fn torn_items_are_told_from_two_meant_ones() {
    let torn = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}, {podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]",
    );
    assert_eq!(
        found(&torn, "and-or-slip").field.as_deref(),
        Some("spec.ingress[0].from[0]")
    );
    assert!(!ids(&torn).contains("peer-in-other-namespace"));
    let meant = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}, {podSelector: {matchLabels: {component: server}}}]}]",
    );
    assert!(!ids(&meant).contains("and-or-slip"));
}

#[test]
fn peers_that_match_nothing() {
    let nothing = policy("ingress: [{from: [{podSelector: {matchLabels: {app: nosuch}}}]}]");
    assert!(
        found(&nothing, "peer-matches-nothing")
            .message
            .contains("app: nosuch")
    );
    let something =
        policy("ingress: [{from: [{podSelector: {matchLabels: {component: server}}}]}]");
    assert!(!ids(&something).contains("peer-matches-nothing"));
}

#[test]
fn services_in_rules() {
    let address =
        policy("policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.43.0.1/32}}]}]");
    assert!(
        found(&address, "service-ip-in-rule")
            .message
            .contains("default/kubernetes")
    );
    let endpoint =
        policy("policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.1.100/32}}]}]");
    assert!(!ids(&endpoint).contains("service-ip-in-rule"));

    let with_service = |port: u16| {
        let mut cluster = policy(&format!("ingress: [{{ports: [{{port: {port}}}]}}]"));
        common::apply(
            &mut cluster,
            "{apiVersion: v1, kind: Service, metadata: {name: vault, namespace: vault}, spec: {clusterIP: 10.43.0.7, ports: [{port: 443}]}}\n---\n{apiVersion: v1, kind: Endpoints, metadata: {name: vault, namespace: vault}, subsets: [{addresses: [{ip: 10.42.1.10}], ports: [{port: 8200}]}]}",
        );
        cluster
    };
    let finding = found(&with_service(443), "service-port-in-rule");
    assert_eq!(finding.fix, "write port 8200");
    assert!(!ids(&with_service(8200)).contains("service-port-in-rule"));
    assert!(!ids(&with_service(444)).contains("service-port-in-rule"));
}

#[test]
fn host_network_pods_are_out_of_reach() {
    let host = "{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: vault, labels: {app: agent}}, spec: {hostNetwork: true, nodeName: worker, containers: []}}";
    let mut selected = policy("podSelector: {matchLabels: {app: agent}}");
    common::apply(&mut selected, host);
    assert_eq!(
        found(&selected, "selects-host-network").field.as_deref(),
        Some("spec.podSelector")
    );
    let mut peer = policy(
        "podSelector: {matchLabels: {app: none}}, ingress: [{from: [{podSelector: {matchLabels: {app: agent}}}]}]",
    );
    common::apply(&mut peer, host);
    assert_eq!(
        found(&peer, "selects-host-network").field.as_deref(),
        Some("spec.ingress[0].from[0]")
    );
    let mut all = policy("podSelector: {}");
    common::apply(&mut all, host);
    assert!(!ids(&all).contains("selects-host-network"));
}

#[test]
fn omitted_types_on_egress_only() {
    assert!(ids(&policy("egress: [{}]")).contains("policy-types-omitted"));
    for fine in [
        "policyTypes: [Egress], egress: [{}]",
        "egress: [{}], ingress: [{}]",
        "ingress: []",
    ] {
        assert!(
            !ids(&policy(fine)).contains("policy-types-omitted"),
            "{fine}"
        );
    }
}

#[test]
fn members_of_a_set_must_meet() {
    let closed = policy("ingress: [{from: [{ipBlock: {cidr: 192.0.2.1/32}}]}]");
    let told: Vec<Finding> = lint(&closed)
        .into_iter()
        .filter(|f| f.rule.id == "statefulset-peers-closed")
        .collect();
    let ports = ["8200", "8201"].map(|port| told.iter().any(|f| f.message.contains(port)));
    assert_eq!((told.len(), ports), (2, [true, true]), "{told:?}");
    assert!(!ids(&incident(BROKEN)).contains("statefulset-peers-closed"));
}

#[test]
fn rules_have_ids_and_lines_of_their_own() {
    let ids: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(ids.len(), RULES.len());
    for rule in RULES {
        assert!(
            !rule.what.is_empty() && !rule.why.is_empty() && !rule.fix.is_empty(),
            "{}",
            rule.id
        );
    }
}

#[test]
fn a_webhook_must_be_open_to_the_api_server() {
    let served = "{apiVersion: v1, kind: Service, metadata: {name: hook, namespace: vault}, spec: {clusterIP: 10.43.0.7, ports: [{port: 443}]}}\n---\n{apiVersion: v1, kind: Endpoints, metadata: {name: hook, namespace: vault}, subsets: [{addresses: [{ip: 10.42.1.10}], ports: [{port: 8200}]}]}\n---\n{apiVersion: v1, kind: Node, metadata: {name: boss, labels: {node-role.kubernetes.io/control-plane: 'true'}}, status: {addresses: [{type: InternalIP, address: 192.168.1.200}]}}";
    let with = |ingress: &str| {
        let mut cluster = policy(&format!("policyTypes: [Ingress], ingress: [{ingress}]"));
        common::apply(&mut cluster, served);
        let webhook = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "vault-injector"},
            "webhooks": [{"name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"namespace": "vault", "name": "hook"}}}]}))
        .unwrap();
        cluster.apply_api_calls(
            ApiCallKind::Mutating,
            "vault-injector",
            ApiCall::of_mutating(&webhook),
        );
        cluster
    };
    let finding = found(&with("{from: [{podSelector: {}}]}"), "webhook-blocked");
    assert!(
        finding
            .message
            .contains("port 8200/TCP for MutatingWebhookConfiguration vault-injector"),
        "{}",
        finding.message
    );
    for open in [
        "{from: [{ipBlock: {cidr: 192.168.1.200/32}}], ports: [{port: 8200}]}",
        "{ports: [{port: 8200}]}",
    ] {
        assert!(!ids(&with(open)).contains("webhook-blocked"), "{open}");
    }
    let other = with("{from: [{ipBlock: {cidr: 192.168.1.200/32}}], ports: [{port: 443}]}");
    assert!(
        ids(&other).contains("webhook-blocked"),
        "the Service's port is not judged"
    );
}

#[test]
fn each_rule_has_its_section_on_the_page() {
    use std::fmt::Write as _;
    let mut page = "# What `tracer lint` finds\n\nOne section a rule; the ids never change. Every rule is judged by the \
                    cluster's dataplane profile.\n\n\
                    Given a cluster, live or as a file, pods are judged as they run. Given manifests, Deployments and \
                    the other\nworkloads stand for the pods they ask for, which are called `name-*`. Where there is no \
                    node among the objects,\nany address that a rule names may be the one that a probe or the API \
                    server needs, and what may live in another\nfolder's namespace is not missed; `--cluster` judges \
                    the manifests as if they were applied there.\n\n\
                    Of a policy whose pods are not among the manifests, what they would lack is told of pods with the \
                    labels that it\nselects; in a direction that it opens nothing in, others are to do that, and \
                    nothing is missed.\n"
        .to_owned();
    for rule in RULES {
        let _ = write!(
            page,
            "\n## {}\n\n**{}.** {}.\n\nWhy: {}.\n\n{}Fix: {}.\n",
            rule.id,
            rule.severity.as_str(),
            capital(rule.what),
            rule.why,
            if rule.seen.is_empty() {
                String::new()
            } else {
                format!("Where it bit: {}.\n\n", rule.seen)
            },
            rule.fix
        );
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lint.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        written, page,
        "docs/lint.md is not what the rules say: UPDATE_DOCS=1 writes it"
    );
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// A folder of manifests: a policy, a Deployment as its pods come to be, and nothing of the cluster's own.
fn manifests(spec: &str) -> Cluster {
    common::cluster(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: shop}}, spec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: web, ports: [{{name: http, containerPort: 8080}}], readinessProbe: {{httpGet: {{port: http}}}}}}]}}}}}}}}\n---\n\
         {{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}}}\n---\n\
         {{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {{podSelector: {{}}, {spec}}}}}"
    ))
}

#[test]
fn manifests_are_judged_without_the_cluster_they_are_for() {
    assert_eq!(
        ids(&manifests("policyTypes: [Ingress, Egress]")),
        BTreeSet::from(["apiserver-blocked", "dns-blocked", "probe-blocked"])
    );
    let probe = found(&manifests("policyTypes: [Ingress]"), "probe-blocked");
    assert_eq!(
        probe.message,
        "the kubelet probes pod shop/web-* on port 8080/TCP, and no rule lets it in"
    );
    // Whatever address is named may be the one that is meant.
    for open in [
        "ingress: [{from: [{ipBlock: {cidr: 192.168.1.0/24}}], ports: [{port: http}]}]",
        "ingress: [{ports: [{port: 8080}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]",
    ] {
        let ids = ids(&manifests(open));
        assert!(!ids.contains("probe-blocked"), "{open}: {ids:?}");
    }
    for closed in [
        "ingress: [{from: [{podSelector: {}}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 192.168.1.0/24}}], ports: [{port: 8081}]}]",
    ] {
        assert!(
            ids(&manifests(closed)).contains("probe-blocked"),
            "{closed}"
        );
    }
    let mut exempt = manifests("policyTypes: [Ingress]");
    exempt.set_profile(Some(Profile::K3S));
    assert!(!ids(&exempt).contains("probe-blocked"));
}

#[test]
fn manifests_that_let_dns_and_the_api_server_through() {
    let egress = |rules: &str| {
        ids(&manifests(&format!(
            "policyTypes: [Egress], egress: [{rules}]"
        )))
    };
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";
    let api = "{to: [{ipBlock: {cidr: 192.168.1.100/32}}], ports: [{port: 6443}]}";
    assert_eq!(egress(&format!("{dns}, {api}")), BTreeSet::new());
    assert_eq!(egress(dns), BTreeSet::from(["apiserver-blocked"]));
    // The address may be the node-local cache's: not said to be wrong.
    assert_eq!(
        egress(&format!(
            "{api}, {{to: [{{ipBlock: {{cidr: 169.254.20.10/32}}}}], ports: [{{port: 53, protocol: UDP}}, {{port: 53}}]}}"
        )),
        BTreeSet::new()
    );
    let udp = dns.replace(", {port: 53}]", "]");
    assert_eq!(
        egress(&format!("{udp}, {api}")),
        BTreeSet::from(["dns-udp-only"])
    );
    let torn = "{to: [{podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";
    assert_eq!(
        egress(&format!("{torn}, {api}")),
        BTreeSet::from(["dns-blocked", "peer-in-other-namespace"])
    );
}

#[test]
fn in_manifests_a_service_leads_to_what_it_selects() {
    let finding = found(
        &manifests("ingress: [{ports: [{port: 80}]}]"),
        "service-port-in-rule",
    );
    assert_eq!(finding.fix, "write port 8080");
    let hook = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "shop"},
        "webhooks": [{"name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "shop", "name": "web", "port": 80}}}]}))
    .unwrap();
    let with = |spec: &str| {
        let mut cluster = manifests(spec);
        let calls = ApiCall::of_validating(&hook);
        cluster.apply_api_calls(ApiCallKind::Validating, "shop", calls);
        ids(&cluster).contains("webhook-blocked")
    };
    assert!(with("ingress: [{from: [{podSelector: {}}]}]"));
    assert!(!with(
        "ingress: [{from: [{ipBlock: {cidr: 192.168.1.100/32}}], ports: [{port: 8080}]}]"
    ));
}

#[test]
fn what_may_live_elsewhere_is_not_missed_in_manifests() {
    let other = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: front}}}]}]";
    assert!(!ids(&manifests(other)).contains("peer-matches-nothing"));
    // A namespace alone: DNS pods that are taken for given are no reason to miss others.
    let monitoring = "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}]";
    assert!(!ids(&manifests(monitoring)).contains("peer-matches-nothing"));
    let own = "ingress: [{from: [{podSelector: {matchLabels: {app: front}}}]}]";
    assert!(ids(&manifests(own)).contains("peer-matches-nothing"));
}
