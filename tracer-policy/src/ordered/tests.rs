mod refused;

use SideVerdict::{Denied, NotIsolated};
use serde_json::{Value, json};

use crate::model::{Namespace, Node, Pod, Protocol};
use crate::policy::{PolicyKind, PolicyRef};
use crate::verdict::{Outcome, SideVerdict};
use crate::{Cluster, End, Flow, Verdict};

/// Namespaces `web` and `db` (label `team` by name), a pod in each; `web` serves 80 as `http`.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for (index, name) in ["web", "db"].into_iter().enumerate() {
        cluster.apply_namespace(Namespace {
            name: name.into(),
            labels: [("team".to_owned(), name.to_owned())].into(),
        });
        let object = serde_json::from_value(json!({
            "metadata": {"name": "pod", "namespace": name, "labels": {"app": name}},
            "spec": {"nodeName": "node-a", "containers": [{"name": "c",
                "ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": format!("10.42.0.{}", index + 10)}}))
        .unwrap();
        cluster.apply_pod(Pod::try_from(&object as &k8s_openapi::api::core::v1::Pod).unwrap());
    }
    let node = serde_json::from_value(json!({
        "metadata": {"name": "node-a", "labels": {"role": "worker"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.10"}]}}))
    .unwrap();
    cluster.apply_node(Node::try_from(&node as &k8s_openapi::api::core::v1::Node).unwrap());
    cluster
}

fn admin(name: &str, priority: i32, spec: &Value) -> (PolicyKind, Value) {
    let mut spec = spec.clone();
    spec["priority"] = priority.into();
    let object = json!({"metadata": {"name": name}, "spec": spec});
    (PolicyKind::AdminNetworkPolicy, object)
}

fn baseline(spec: &Value) -> (PolicyKind, Value) {
    let object = json!({"metadata": {"name": "default"}, "spec": spec});
    (PolicyKind::BaselineAdminNetworkPolicy, object)
}

/// Ingress to namespace `web`.
fn to_web(rules: &Value) -> Value {
    json!({"subject": {"namespaces": {"matchLabels": {"team": "web"}}}, "ingress": rules})
}

fn rule(action: &str) -> Value {
    json!({"action": action, "from": [{"namespaces": {}}]})
}

fn with(policies: impl IntoIterator<Item = (PolicyKind, Value)>) -> Cluster {
    let mut cluster = cluster();
    for (kind, object) in policies {
        cluster.apply_ordered(kind, &object).unwrap();
    }
    cluster
}

fn network_policy(cluster: &mut Cluster, ingress: &Value) {
    let object = serde_json::from_value(json!({
        "metadata": {"name": "np", "namespace": "web"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress}}))
    .unwrap();
    cluster.apply_network_policy(&object).unwrap();
}

fn to(cluster: &Cluster, port: u16) -> Verdict {
    cluster.evaluate(&Flow::tcp(
        End::pod("db", "pod"),
        End::pod("web", "pod"),
        port,
    ))
}

fn outcome(cluster: &Cluster) -> Outcome {
    to(cluster, 80).verdict
}

#[test]
fn a_deny_ahead_of_network_policies_is_a_culprit_by_name() {
    let mut cluster = with([admin("no", 10, &to_web(&json!([rule("Deny")])))]);
    network_policy(&mut cluster, &json!([{}]));
    let verdict = to(&cluster, 80);
    assert!(verdict.is_denied());
    let side = &verdict.ingress;
    assert_eq!(side.verdict, Denied);
    assert!(side.isolating.is_empty() && side.nearest_miss.is_none());
    let rule = side.denied_by.as_ref().unwrap();
    assert_eq!((rule.policy.name(), &*rule.rule), ("no", "spec.ingress[0]"));
    assert_eq!(
        cluster.ordered_rule_text(rule),
        Some("{action: Deny, from: [{namespaces: {}}]}")
    );
    assert_eq!(
        serde_json::to_value(&verdict.ingress).unwrap()["denied_by"],
        json!({"kind": "AdminNetworkPolicy", "name": "no", "rule": "spec.ingress[0]"})
    );
}

#[test]
fn an_allow_ahead_of_network_policies_cannot_be_undone_by_one() {
    let mut cluster = with([admin("yes", 10, &to_web(&json!([rule("Allow")])))]);
    network_policy(&mut cluster, &json!([]));
    assert_eq!(outcome(&cluster), Outcome::Allowed);
    assert_eq!(to(&cluster, 80).ingress.allowed_by[0].policy.name(), "yes");
}

#[test]
fn pass_leaves_it_to_the_next_tier() {
    let policies = [
        admin("pass", 1, &to_web(&json!([rule("Pass"), rule("Deny")]))),
        admin("deny", 2, &to_web(&json!([rule("Deny")]))),
    ];
    let mut cluster = with(policies);
    assert_eq!(outcome(&cluster), Outcome::Allowed, "nothing else isolates");
    network_policy(&mut cluster, &json!([]));
    let verdict = to(&cluster, 80);
    assert!(verdict.is_denied());
    assert_eq!(verdict.ingress.isolating[0].name(), "np");
}

#[test]
fn the_lowest_priority_number_is_asked_first_whatever_came_first() {
    let allow = admin("b-allow", 5, &to_web(&json!([rule("Allow")])));
    let deny = admin("a-deny", 6, &to_web(&json!([rule("Deny")])));
    for policies in [[allow.clone(), deny.clone()], [deny, allow]] {
        assert_eq!(outcome(&with(policies)), Outcome::Allowed);
    }
}

#[test]
fn within_a_policy_the_first_rule_that_matches_decides() {
    let rules = json!([
        {"action": "Allow", "from": [{"namespaces": {}}],
         "ports": [{"portNumber": {"protocol": "TCP", "port": 80}}]},
        rule("Deny")]);
    let cluster = with([admin("a", 1, &to_web(&rules))]);
    assert!(to(&cluster, 80).is_allowed());
    assert!(to(&cluster, 81).is_denied());
}

#[test]
fn the_baseline_is_for_pods_that_no_network_policy_isolates() {
    let mut cluster = with([baseline(&to_web(&json!([rule("Deny")])))]);
    assert_eq!(outcome(&cluster), Outcome::Denied);
    network_policy(&mut cluster, &json!([{}]));
    assert_eq!(outcome(&cluster), Outcome::Allowed);
    let mut cluster = with([baseline(&to_web(&json!([rule("Allow")])))]);
    network_policy(&mut cluster, &json!([]));
    assert_eq!(outcome(&cluster), Outcome::Denied);
}

#[test]
fn a_policy_is_about_its_subject_and_the_directions_it_has_rules_for() {
    let pods = |app: &str| {
        json!({"subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}},
            "ingress": [rule("Deny")]})
    };
    assert_eq!(
        outcome(&with([admin("a", 1, &pods("web"))])),
        Outcome::Denied
    );
    assert_eq!(
        outcome(&with([admin("a", 1, &pods("db"))])),
        Outcome::Allowed
    );
    let mut egress = to_web(&json!([]));
    egress["egress"] = json!([{"action": "Deny", "to": [{"namespaces": {}}]}]);
    assert_eq!(outcome(&with([admin("a", 1, &egress)])), Outcome::Allowed);
}

#[test]
fn peers_are_pods_nodes_or_networks() {
    let verdict = |peer: &Value, to: &str| {
        let spec = json!({"subject": {"namespaces": {}},
            "egress": [{"action": "Deny", "to": [peer]}]});
        let cluster = with([admin("a", 1, &spec)]);
        let to = to.parse().map_or_else(|_| End::pod(to, "pod"), End::Ip);
        cluster
            .evaluate(&Flow::tcp(End::pod("db", "pod"), to, 80))
            .egress
            .verdict
    };
    let pods =
        json!({"pods": {"namespaceSelector": {"matchLabels": {"team": "web"}}, "podSelector": {}}});
    assert_eq!(verdict(&pods, "web"), Denied);
    assert_eq!(verdict(&pods, "db"), NotIsolated);
    assert_eq!(
        verdict(&json!({"namespaces": {}}), "192.168.1.10"),
        NotIsolated
    );
    let nodes = json!({"nodes": {"matchLabels": {"role": "worker"}}});
    assert_eq!(verdict(&nodes, "192.168.1.10"), Denied);
    assert_eq!(verdict(&nodes, "192.0.2.1"), NotIsolated);
    assert_eq!(verdict(&nodes, "web"), NotIsolated);
    let other = json!({"nodes": {"matchLabels": {"role": "master"}}});
    assert_eq!(verdict(&other, "192.168.1.10"), NotIsolated);
    let networks = json!({"networks": ["192.0.2.0/24", "10.42.0.0/16"]});
    assert_eq!(verdict(&networks, "192.0.2.1"), Denied);
    assert_eq!(verdict(&networks, "web"), Denied, "pods have addresses too");
    assert_eq!(verdict(&networks, "198.51.100.1"), NotIsolated);
}

#[test]
fn ports_are_numbers_ranges_and_names() {
    let denied = |ports: &Value, port: u16, protocol: Protocol| {
        let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}], "ports": [ports]}]);
        let cluster = with([admin("a", 1, &to_web(&rules))]);
        let flow = Flow {
            protocol,
            ..Flow::tcp(End::pod("db", "pod"), End::pod("web", "pod"), port)
        };
        cluster.evaluate(&flow).is_denied()
    };
    let number = json!({"portNumber": {"protocol": "UDP", "port": 53}});
    assert!(denied(&number, 53, Protocol::Udp));
    assert!(!denied(&number, 53, Protocol::Tcp) && !denied(&number, 54, Protocol::Udp));
    let range = json!({"portRange": {"protocol": "TCP", "start": 80, "end": 90}});
    assert!(denied(&range, 80, Protocol::Tcp) && denied(&range, 90, Protocol::Tcp));
    assert!(!denied(&range, 91, Protocol::Tcp));
    let name = json!({"namedPort": "http"});
    assert!(denied(&name, 80, Protocol::Tcp));
    assert!(!denied(&name, 81, Protocol::Tcp));
}

#[test]
fn the_newer_kind_says_the_same_in_its_own_words() {
    let policy = |tier: &str, protocols: Value| {
        let object = json!({"metadata": {"name": "c"}, "spec": {
            "tier": tier, "priority": 1, "subject": {"namespaces": {"matchLabels": {"team": "web"}}},
            "ingress": [
                {"action": "Accept", "from": [{"namespaces": {}}], "protocols": protocols},
                {"action": "Deny", "from": [{"namespaces": {}}]}]}});
        with([(PolicyKind::ClusterNetworkPolicy, object)])
    };
    for tier in ["Admin", "Baseline"] {
        let cluster = policy(tier, json!([{"tcp": {"destinationPort": {"number": 80}}}]));
        assert!(to(&cluster, 80).is_allowed() && to(&cluster, 81).is_denied());
        let cluster = policy(
            tier,
            json!([{"tcp": {"destinationPort": {"range": {"start": 80, "end": 81}}}}]),
        );
        assert!(to(&cluster, 81).is_allowed() && to(&cluster, 82).is_denied());
        let cluster = policy(tier, json!([{"destinationNamedPort": "http"}]));
        assert!(to(&cluster, 80).is_allowed() && to(&cluster, 81).is_denied());
        let cluster = policy(tier, json!([{"udp": {}}]));
        assert!(to(&cluster, 80).is_denied());
    }
}

#[test]
fn a_flow_without_a_port_is_undecided_where_a_rule_asks_for_one() {
    let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}],
        "ports": [{"portNumber": {"port": 80}}]}]);
    let cluster = with([admin("a", 1, &to_web(&rules))]);
    let flow = Flow {
        port: None,
        ..Flow::tcp(End::pod("db", "pod"), End::pod("web", "pod"), 0)
    };
    assert_eq!(cluster.evaluate(&flow).verdict, Outcome::Unknown);
}

#[test]
fn only_what_is_asked_ahead_of_network_policies_overrules_them() {
    let overrules = |policy: (PolicyKind, Value)| {
        let cluster = with([policy]);
        let rule = to(&cluster, 80).ingress.denied_by.unwrap();
        cluster.overrules_network_policies(&rule)
    };
    assert!(overrules(admin("a", 1, &to_web(&json!([rule("Deny")])))));
    assert!(!overrules(baseline(&to_web(&json!([rule("Deny")])))));
}

#[test]
fn policies_of_one_priority_that_disagree_leave_the_verdict_open() {
    let policy = |name: &str, action: &str| admin(name, 5, &to_web(&json!([rule(action)])));
    let cluster = with([policy("a", "Allow"), policy("b", "Deny")]);
    let verdict = to(&cluster, 80);
    assert_eq!(verdict.verdict, Outcome::Unknown);
    assert!(
        verdict
            .reason
            .unwrap()
            .contains("a and b have the same priority")
    );
    assert_eq!(
        outcome(&with([policy("a", "Deny"), policy("b", "Deny")])),
        Outcome::Denied
    );
}

#[test]
fn a_node_whose_labels_are_not_known_leaves_the_verdict_open() {
    let egress = |nodes: Value| {
        let spec = json!({"subject": {"namespaces": {}}, "egress": [{"action": "Deny", "to": [{"nodes": nodes}]}]});
        let mut cluster = with([admin("a", 1, &spec)]);
        cluster.remove_node("node-a");
        let object = serde_json::from_value(json!({
            "metadata": {"name": "host", "namespace": "web"},
            "spec": {"nodeName": "node-a", "hostNetwork": true, "containers": []},
            "status": {"phase": "Running", "podIP": "192.168.1.10"}}))
        .unwrap();
        cluster.apply_pod(Pod::try_from(&object as &k8s_openapi::api::core::v1::Pod).unwrap());
        let flow = Flow::tcp(End::pod("db", "pod"), End::pod("web", "host"), 80);
        cluster.evaluate(&flow).verdict
    };
    assert_eq!(
        egress(json!({"matchLabels": {"role": "worker"}})),
        Outcome::Unknown
    );
    assert_eq!(egress(json!({})), Outcome::Denied);
}
