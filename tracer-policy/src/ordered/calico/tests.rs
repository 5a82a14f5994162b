#![expect(
    clippy::needless_pass_by_value,
    reason = "JSON that is written where it is used"
)]

use serde_json::{Value, json};

use crate::model::{Namespace, Pod, Protocol};
use crate::policy::PolicyKind;
use crate::verdict::Outcome;
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
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": format!("10.42.0.{}", index + 10)}}))
        .unwrap();
        cluster.apply_pod(Pod::try_from(&object as &k8s_openapi::api::core::v1::Pod).unwrap());
    }
    cluster
}

fn global(cluster: &mut Cluster, name: &str, spec: Value) {
    let object =
        json!({"apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec});
    cluster
        .apply_ordered(PolicyKind::GlobalNetworkPolicy, &object)
        .unwrap();
}

fn namespaced(cluster: &mut Cluster, namespace: &str, name: &str, spec: Value) {
    let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    cluster
        .apply_ordered(PolicyKind::CalicoNetworkPolicy, &object)
        .unwrap();
}

fn network_policy(cluster: &mut Cluster, ingress: Value) {
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

/// One rule of ingress to `web`, judged.
fn one(rule: Value) -> Outcome {
    let mut cluster = cluster();
    global(
        &mut cluster,
        "a",
        json!({"selector": "app == 'web'", "types": ["Ingress"], "ingress": [rule]}),
    );
    outcome(&cluster)
}

#[test]
fn what_no_rule_of_a_tier_matches_is_denied_jointly() {
    let mut cluster = cluster();
    global(
        &mut cluster,
        "b",
        json!({"selector": "all()", "types": ["Ingress"]}),
    );
    global(
        &mut cluster,
        "a",
        json!({"selector": "app == 'web'", "types": ["Ingress"]}),
    );
    let verdict = to(&cluster, 80);
    assert!(verdict.is_denied() && verdict.ingress.denied_by.is_none());
    let names: Vec<_> = verdict
        .ingress
        .isolating
        .iter()
        .map(crate::PolicyRef::name)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn an_explicit_deny_is_a_culprit_and_order_decides() {
    let mut cluster = cluster();
    let deny = json!({"order": 20, "ingress": [{"action": "Deny"}]});
    let allow = |order: f64| json!({"order": order, "ingress": [{"action": "Allow"}]});
    global(&mut cluster, "deny", deny);
    assert_eq!(
        to(&cluster, 80).ingress.denied_by.unwrap().policy.name(),
        "deny"
    );
    global(&mut cluster, "allow", allow(21.0));
    assert_eq!(outcome(&cluster), Outcome::Denied);
    global(&mut cluster, "allow", allow(19.5));
    assert_eq!(outcome(&cluster), Outcome::Allowed);
    // Without an order it is the last.
    global(
        &mut cluster,
        "allow",
        json!({"ingress": [{"action": "Allow"}]}),
    );
    assert_eq!(outcome(&cluster), Outcome::Denied);
}

#[test]
fn network_policies_stand_at_order_1000_of_the_default_tier() {
    let with = |order: f64, action: &str, rules: Value| {
        let mut cluster = cluster();
        network_policy(&mut cluster, rules);
        global(
            &mut cluster,
            "g",
            json!({"order": order, "ingress": [{"action": action}]}),
        );
        outcome(&cluster)
    };
    assert_eq!(with(10.0, "Deny", json!([{}])), Outcome::Denied);
    assert_eq!(with(2000.0, "Deny", json!([{}])), Outcome::Allowed);
    assert_eq!(with(10.0, "Allow", json!([])), Outcome::Allowed);
    assert_eq!(
        with(2000.0, "Allow", json!([])),
        Outcome::Allowed,
        "they do not allow, and what comes after them in the tier does"
    );
}

#[test]
fn tiers_are_asked_in_order_and_pass_leads_to_the_next() {
    let mut cluster = cluster();
    let tier = |name: &str, order: u32, action: Option<&str>| json!({"metadata": {"name": name}, "spec": {"order": order, "defaultAction": action}});
    cluster.apply_calico_tier(&tier("first", 1, None)).unwrap();
    cluster.apply_calico_tier(&tier("second", 2, None)).unwrap();
    global(
        &mut cluster,
        "s",
        json!({"tier": "second", "ingress": [{"action": "Allow"}]}),
    );
    assert_eq!(outcome(&cluster), Outcome::Allowed);
    global(
        &mut cluster,
        "f",
        json!({"tier": "first", "ingress": [
            {"action": "Pass", "protocol": "TCP", "destination": {"ports": [80]}}]}),
    );
    assert_eq!(outcome(&cluster), Outcome::Allowed);
    assert!(to(&cluster, 81).is_denied(), "the tier's own end");
    cluster
        .apply_calico_tier(&tier("first", 1, Some("Pass")))
        .unwrap();
    assert!(to(&cluster, 81).is_allowed());
    cluster.apply_calico_tier(&tier("first", 3, None)).unwrap();
    assert!(
        to(&cluster, 81).is_allowed(),
        "the other is asked first now"
    );
}

#[test]
fn log_decides_nothing() {
    let mut cluster = cluster();
    global(
        &mut cluster,
        "a",
        json!({"ingress": [{"action": "Log"}, {"action": "Allow"}]}),
    );
    let verdict = to(&cluster, 80);
    assert!(verdict.is_allowed());
    assert_eq!(&*verdict.ingress.allowed_by[0].rule, "spec.ingress[1]");
}

#[test]
fn each_criterion_must_hold() {
    let (yes, no) = (Outcome::Allowed, Outcome::Denied);
    for (rule, expected) in [
        (json!({}), yes),
        (json!({"protocol": "TCP"}), yes),
        (json!({"protocol": 6}), yes),
        (json!({"protocol": "UDP"}), no),
        (json!({"notProtocol": "TCP"}), no),
        (json!({"notProtocol": "UDP"}), yes),
        (json!({"ipVersion": 4}), yes),
        (json!({"ipVersion": 6}), no),
        (json!({"protocol": "ICMP", "icmp": {"type": 8}}), no),
        (json!({"source": {"nets": ["10.42.0.11"]}}), yes),
        (json!({"source": {"nets": ["10.43.0.0/16"]}}), no),
        (json!({"source": {"notNets": ["10.42.0.0/24"]}}), no),
        (json!({"source": {"notNets": ["10.43.0.0/16"]}}), yes),
        (
            json!({"source": {"nets": ["10.42.0.0/16"], "notNets": ["10.42.0.11/32"]}}),
            no,
        ),
        (json!({"source": {"selector": "app == 'db'"}}), yes),
        (json!({"source": {"selector": "app == 'web'"}}), no),
        (json!({"source": {"selector": "pcns.team == 'db'"}}), yes),
        (
            json!({"source": {"selector": "projectcalico.org/namespace == 'db'"}}),
            yes,
        ),
        (json!({"source": {"notSelector": "app == 'db'"}}), no),
        (json!({"source": {"notSelector": "app == 'x'"}}), yes),
        (
            json!({"source": {"namespaceSelector": "team == 'db'"}}),
            yes,
        ),
        (
            json!({"source": {"namespaceSelector": "team == 'web'"}}),
            no,
        ),
        (
            json!({"source": {"namespaceSelector": "projectcalico.org/name == 'db'"}}),
            yes,
        ),
        (
            json!({"source": {"namespaceSelector": "team == 'db'", "selector": "app == 'web'"}}),
            no,
        ),
        (json!({"source": {"namespaceSelector": "global()"}}), no),
        (json!({"destination": {"selector": "app == 'web'"}}), yes),
        (json!({"destination": {"selector": "app == 'db'"}}), no),
        (
            json!({"protocol": "TCP", "destination": {"ports": [80]}}),
            yes,
        ),
        (
            json!({"protocol": "TCP", "destination": {"ports": ["70:90"]}}),
            yes,
        ),
        (
            json!({"protocol": "TCP", "destination": {"ports": ["http"]}}),
            yes,
        ),
        (
            json!({"protocol": "TCP", "destination": {"ports": [81, "82:90", "https"]}}),
            no,
        ),
        (
            json!({"protocol": "TCP", "destination": {"notPorts": [80]}}),
            no,
        ),
        (
            json!({"protocol": "TCP", "destination": {"notPorts": ["81:90"]}}),
            yes,
        ),
    ] {
        let mut allow = rule.clone();
        allow["action"] = "Allow".into();
        assert_eq!(one(allow), expected, "{rule}");
    }
}

#[test]
fn what_a_flow_does_not_say_leaves_the_verdict_open() {
    let allow = json!({"action": "Allow", "protocol": "TCP", "source": {"ports": [1024]}});
    assert_eq!(one(allow), Outcome::Unknown);
    let mut cluster = cluster();
    global(
        &mut cluster,
        "a",
        json!({"ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}}]}),
    );
    let ping = Flow {
        port: None,
        protocol: Protocol::Icmp,
        ..Flow::tcp(End::pod("db", "pod"), End::pod("web", "pod"), 0)
    };
    assert_eq!(cluster.evaluate(&ping).verdict, Outcome::Unknown);
}

#[test]
fn icmp_is_told_apart_by_type_and_code_where_the_flow_says_them() {
    use Outcome::{Allowed as Y, Denied as N, Unknown as U};
    let messages = [(8, Some(0)), (8, Some(1)), (8, None), (3, Some(0))];
    for (criteria, expected) in [
        (json!({"icmp": {"type": 8}}), [Y, Y, Y, N]),
        (json!({"icmp": {"type": 8, "code": 0}}), [Y, N, U, N]),
        (json!({"icmp": {}}), [Y; 4]),
        (json!({"notICMP": {"type": 8}}), [N, N, N, Y]),
        (json!({"notICMP": {"type": 8, "code": 0}}), [N, Y, U, Y]),
        (
            json!({"icmp": {"type": 8}, "notICMP": {"code": 1}}),
            [Y, N, U, N],
        ),
    ] {
        let mut rule = criteria.clone();
        rule["action"] = "Allow".into();
        rule["protocol"] = "ICMP".into();
        let mut cluster = cluster();
        global(&mut cluster, "a", json!({"ingress": [rule]}));
        let verdicts = messages.map(|(kind, code)| {
            let ping = Flow {
                port: None,
                protocol: Protocol::Icmp,
                icmp: Some(crate::Icmp { kind, code }),
                ..Flow::tcp(End::pod("db", "pod"), End::pod("web", "pod"), 0)
            };
            cluster.evaluate(&ping).verdict
        });
        assert_eq!(verdicts, expected, "{criteria}");
    }
}

#[test]
fn a_namespaced_policy_looks_at_its_own_namespace_unless_told_otherwise() {
    let with = |source: Value| {
        let mut cluster = cluster();
        namespaced(
            &mut cluster,
            "web",
            "a",
            json!({"selector": "app == 'web'", "ingress": [{"action": "Allow", "source": source}]}),
        );
        outcome(&cluster)
    };
    assert_eq!(with(json!({"selector": "app == 'db'"})), Outcome::Denied);
    assert_eq!(
        with(json!({"selector": "app == 'db'", "namespaceSelector": "all()"})),
        Outcome::Allowed
    );
    assert_eq!(with(json!({})), Outcome::Allowed);
    let mut cluster = cluster();
    namespaced(&mut cluster, "db", "a", json!({"ingress": []}));
    assert_eq!(outcome(&cluster), Outcome::Allowed, "another namespace's");
}

#[test]
fn types_follow_the_rules_that_are_there() {
    let isolates = |spec: Value| {
        let mut cluster = cluster();
        global(&mut cluster, "a", spec);
        let verdict = to(&cluster, 80);
        (
            !verdict.egress.isolating.is_empty(),
            !verdict.ingress.isolating.is_empty(),
        )
    };
    let none = json!([{"action": "Allow", "protocol": "SCTP"}]);
    assert_eq!(isolates(json!({})), (false, true));
    assert_eq!(isolates(json!({"egress": none})), (true, false));
    assert_eq!(
        isolates(json!({"ingress": none, "egress": none})),
        (true, true)
    );
    assert_eq!(isolates(json!({"types": ["Egress"]})), (true, false));
    assert_eq!(
        isolates(json!({"types": ["Ingress"], "preDNAT": true})),
        (false, false)
    );
}

#[test]
fn network_sets_are_selected_by_their_labels() {
    let mut cluster = cluster();
    let set = json!({"metadata": {"name": "partners", "labels": {"role": "partner"}},
        "spec": {"nets": ["192.0.2.0/24"]}});
    cluster.apply_network_set(&set).unwrap();
    global(
        &mut cluster,
        "a",
        json!({"selector": "app == 'db'", "types": ["Egress"], "egress": [
            {"action": "Allow", "destination": {"selector": "role == 'partner'", "namespaceSelector": "global()"}}]}),
    );
    let out = |cluster: &Cluster, ip: &str| {
        let flow = Flow::tcp(End::pod("db", "pod"), End::Ip(ip.parse().unwrap()), 443);
        cluster.evaluate(&flow).verdict
    };
    assert_eq!(out(&cluster, "192.0.2.7"), Outcome::Allowed);
    assert_eq!(out(&cluster, "198.51.100.7"), Outcome::Denied);
    cluster.remove_network_set(None, "partners");
    assert_eq!(out(&cluster, "192.0.2.7"), Outcome::Denied);
}

#[test]
fn what_is_not_known_names_the_field_and_leaves_the_verdict_open() {
    for (spec, field) in [
        (
            json!({"ingress": [{"action": "Allow", "http": {"methods": ["GET"]}}]}),
            "spec.ingress[0].http",
        ),
        (
            json!({"ingress": [{"action": "Allow", "source": {"serviceAccounts": {"names": ["x"]}}}]}),
            "spec.ingress[0].source.serviceAccounts",
        ),
        (
            json!({"serviceAccountSelector": "all()"}),
            "spec.serviceAccountSelector",
        ),
        (json!({"selector": "app = 'web'"}), "spec.selector"),
        (
            json!({"ingress": [{"action": "Permit"}]}),
            "spec.ingress[0].action",
        ),
        (
            json!({"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.0/99"]}}]}),
            "spec.ingress[0].source.nets[0]",
        ),
        (
            json!({"ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["9:1"]}}]}),
            "spec.ingress[0].destination.ports[0]",
        ),
    ] {
        let mut cluster = cluster();
        let object = json!({"metadata": {"name": "a"}, "spec": spec});
        let error = cluster
            .apply_ordered(PolicyKind::GlobalNetworkPolicy, &object)
            .unwrap_err();
        assert_eq!(error.field, field);
        let verdict = to(&cluster, 80);
        assert_eq!(verdict.verdict, Outcome::Unknown, "{field}");
        assert!(verdict.reason.unwrap().contains(field), "{field}");
    }
}

#[test]
fn objects_of_the_crd_have_their_tier_before_their_name() {
    let mut cluster = cluster();
    let object = json!({"apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "default.no"},
        "spec": {"tier": "default", "ingress": [{"action": "Deny"}]}});
    cluster
        .apply_ordered(PolicyKind::GlobalNetworkPolicy, &object)
        .unwrap();
    assert_eq!(
        to(&cluster, 80).ingress.denied_by.unwrap().policy.name(),
        "no"
    );
}

#[test]
fn an_object_takes_its_own_policy_with_it_whatever_else_is_named_alike() {
    let mut cluster = cluster();
    let kind = PolicyKind::GlobalNetworkPolicy;
    let apply = |cluster: &mut Cluster, name: &str, tier: &str| {
        let object = json!({"apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": name},
            "spec": {"selector": "all()", "tier": tier}});
        cluster.apply_ordered(kind, &object).unwrap();
    };
    let names = |cluster: &Cluster| -> Vec<String> {
        let mut names: Vec<_> = cluster
            .ordered_policies()
            .map(|policy| policy.id().name().to_owned())
            .collect();
        names.sort();
        names
    };
    // The first one is called `web.no` in its tier, the second `no`.
    apply(&mut cluster, "default.web.no", "default");
    apply(&mut cluster, "web.no", "web");
    assert_eq!(names(&cluster), ["no", "web.no"]);
    cluster.remove_ordered_object(kind, None, "web.no");
    assert_eq!(names(&cluster), ["web.no"]);
    cluster.remove_ordered_object(kind, None, "web.no");
    assert_eq!(names(&cluster), ["web.no"], "that object is gone already");
    // Changed in place: there is one policy of an object.
    apply(&mut cluster, "default.web.no", "other");
    assert_eq!(names(&cluster), ["default.web.no"]);
    cluster.remove_ordered_object(kind, None, "default.web.no");
    assert!(names(&cluster).is_empty());
}
