//! What the API server would refuse, and what it would take and is not known here.

use super::*;

#[test]
fn what_is_not_known_makes_the_verdict_unknown_and_names_the_field() {
    let mut cluster = cluster();
    let spec = json!({"priority": 5, "subject": {"namespaces": {"matchLabels": {"team": "web"}}},
        "ingress": [{"action": "Deny", "from": [{"galaxies": {}}]}]});
    let object = json!({"metadata": {"name": "new"}, "spec": spec});
    let error = cluster
        .apply_ordered(PolicyKind::AdminNetworkPolicy, &object)
        .unwrap_err()
        .to_string();
    assert!(
        error
            .starts_with("AdminNetworkPolicy new: spec.ingress[0].from[0].galaxies: unknown field"),
        "{error}"
    );
    let verdict = to(&cluster, 80);
    assert_eq!(verdict.verdict, Outcome::Unknown);
    assert!(verdict.reason.unwrap().contains("galaxies"));
    let back = Flow::tcp(End::pod("web", "pod"), End::pod("db", "pod"), 80);
    assert!(
        cluster.evaluate(&back).is_allowed(),
        "it is about web's ingress"
    );
    // What is asked before it is still known.
    let (kind, deny) = admin("first", 1, &to_web(&json!([rule("Deny")])));
    cluster.apply_ordered(kind, &deny).unwrap();
    assert_eq!(outcome(&cluster), Outcome::Denied);
    for name in ["first", "new"] {
        cluster.remove_ordered(&PolicyRef::new(kind, None, name.into()));
    }
    assert_eq!(outcome(&cluster), Outcome::Allowed);
}

#[test]
fn what_the_api_would_refuse_is_named() {
    let refused = |change: fn(&mut Value)| {
        let (kind, mut object) = admin("a", 1, &to_web(&json!([rule("Deny")])));
        change(&mut object["spec"]);
        let error = cluster().apply_ordered(kind, &object).unwrap_err();
        error.field
    };
    assert_eq!(
        refused(|spec| spec["priority"] = 1001.into()),
        "spec.priority"
    );
    assert_eq!(refused(|spec| spec["subject"] = json!({})), "spec.subject");
    assert_eq!(
        refused(|spec| spec["ingress"][0]["action"] = "Accept".into()),
        "spec.ingress[0].action"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["from"] = json!([])),
        "spec.ingress[0].from"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["from"] = json!([{"networks": ["192.0.2.0/24"]}])),
        "spec.ingress[0].from[0]"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["from"] = json!([{"nodes": {}}])),
        "spec.ingress[0].from[0]"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["to"] = json!([{"namespaces": {}}])),
        "spec.ingress[0]"
    );
    // An empty list means nothing the API knows; the other field is the newer kind's.
    assert_eq!(
        refused(|spec| spec["ingress"][0]["ports"] = json!([])),
        "spec.ingress[0].ports"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["protocols"] = json!([{"tcp": {}}])),
        "spec.ingress[0].protocols"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["ports"] = json!([{"portNumber": {"port": 0}}])),
        "spec.ingress[0].ports[0].portNumber.port"
    );
}

#[test]
fn more_than_the_api_takes_is_named() {
    type Fill = fn(&mut Value, usize);
    fn many(item: &Value, count: usize) -> Value {
        Value::Array(vec![item.clone(); count])
    }
    let apply = |change: &dyn Fn(&mut Value)| {
        let networks = json!({"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]});
        let (kind, mut object) = admin("a", 1, &to_web(&json!([rule("Deny")])));
        object["spec"]["egress"] = json!([networks]);
        change(&mut object["spec"]);
        let error = cluster().apply_ordered(kind, &object).err()?;
        Some(error.field)
    };
    let cases: [(&str, usize, Fill); 5] = [
        ("spec.ingress", 100, |spec, count| {
            spec["ingress"] = many(&rule("Deny"), count);
        }),
        ("spec.ingress[0].from", 100, |spec, count| {
            spec["ingress"][0]["from"] = many(&json!({"namespaces": {}}), count);
        }),
        ("spec.ingress[0].ports", 100, |spec, count| {
            let port = json!({"portNumber": {"protocol": "TCP", "port": 1}});
            spec["ingress"][0]["ports"] = many(&port, count);
        }),
        ("spec.ingress[0].name", 100, |spec, count| {
            spec["ingress"][0]["name"] = "ü".repeat(count).into();
        }),
        ("spec.egress[0].to[0].networks", 25, |spec, count| {
            spec["egress"][0]["to"][0]["networks"] = many(&"192.0.2.0/24".into(), count);
        }),
    ];
    for (field, most, fill) in cases {
        assert_eq!(apply(&|spec| fill(spec, most)), None, "{field}");
        assert_eq!(apply(&|spec| fill(spec, most + 1)).as_deref(), Some(field));
    }
    let none = apply(&|spec| spec["egress"][0]["to"][0]["networks"] = json!([]));
    assert_eq!(none.as_deref(), Some("spec.egress[0].to[0].networks"));
    let named = apply(&|spec| spec["egress"][0]["ports"] = json!([{"namedPort": "http"}]));
    assert_eq!(named.as_deref(), Some("spec.egress[0].ports[0].namedPort"));
}

#[test]
fn there_is_one_baseline() {
    let (kind, mut object) = baseline(&to_web(&json!([rule("Deny")])));
    assert_eq!(cluster().apply_ordered(kind, &object), Ok(()));
    object["metadata"]["name"] = "second".into();
    let error = cluster().apply_ordered(kind, &object).unwrap_err();
    assert_eq!(error.field, "metadata.name");
}

#[test]
fn the_newer_kind_refuses_the_older_ones_words() {
    let refused = |change: fn(&mut Value)| {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}});
        change(&mut object["spec"]);
        let kind = PolicyKind::ClusterNetworkPolicy;
        cluster().apply_ordered(kind, &object).unwrap_err().field
    };
    assert_eq!(refused(|spec| spec["tier"] = "Middle".into()), "spec.tier");
    assert_eq!(refused(|spec| spec["tier"] = Value::Null), "spec.tier");
    assert_eq!(
        refused(|spec| spec["ingress"][0]["action"] = "Allow".into()),
        "spec.ingress[0].action"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["ports"] = json!([{"portNumber": {"port": 1}}])),
        "spec.ingress[0].ports"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["protocols"] = json!([])),
        "spec.ingress[0].protocols"
    );
    assert_eq!(
        refused(|spec| spec["ingress"][0]["protocols"] = json!([{"tcp": {}, "udp": {}}])),
        "spec.ingress[0].protocols[0]"
    );
}

#[test]
fn a_baseline_neither_passes_nor_has_a_priority() {
    let refused = |change: fn(&mut Value)| {
        let (kind, mut object) = baseline(&to_web(&json!([rule("Deny")])));
        change(&mut object["spec"]);
        cluster().apply_ordered(kind, &object).unwrap_err().field
    };
    assert_eq!(
        refused(|spec| spec["ingress"][0]["action"] = "Pass".into()),
        "spec.ingress[0].action"
    );
    assert_eq!(refused(|spec| spec["priority"] = 1.into()), "spec.priority");
    assert_eq!(
        refused(|spec| spec["tier"] = "Baseline".into()),
        "spec.tier"
    );
}

#[test]
fn a_selector_with_a_line_that_is_not_known_is_no_wider_selector() {
    for (spec, field) in [
        (
            json!({"subject": {"namespaces": {"matchLabel": {"team": "web"}}}, "ingress": [rule("Deny")]}),
            "spec.subject.namespaces.matchLabel",
        ),
        (
            to_web(
                &json!([{"action": "Deny", "from": [{"namespaces": {"sameLabels": ["team"]}}]}]),
            ),
            "spec.ingress[0].from[0].namespaces.sameLabels",
        ),
    ] {
        let (kind, object) = admin("a", 1, &spec);
        let mut cluster = cluster();
        assert_eq!(
            cluster.apply_ordered(kind, &object).unwrap_err().field,
            field
        );
        assert_eq!(outcome(&cluster), Outcome::Unknown);
    }
}

#[test]
fn a_rule_that_is_not_known_matters_only_where_it_is_asked() {
    let known = json!({"action": "Deny", "from": [{"namespaces": {}}],
        "ports": [{"portNumber": {"protocol": "TCP", "port": 80}}]});
    let new = json!({"action": "Allow", "from": [{"galaxies": {}}]});
    let judged = |rules: Value| {
        let mut cluster = cluster();
        let (kind, object) = admin("a", 1, &to_web(&rules));
        let error = cluster.apply_ordered(kind, &object).unwrap_err();
        let policy = cluster.ordered_policies().next().unwrap();
        assert_eq!(policy.problem(), Some(&error));
        (error.field, [80, 81].map(|port| to(&cluster, port).verdict))
    };
    let (field, verdicts) = judged(json!([known, new]));
    assert_eq!(field, "spec.ingress[1].from[0].galaxies");
    assert_eq!(verdicts, [Outcome::Denied, Outcome::Unknown]);
    let (field, verdicts) = judged(json!([new, known]));
    assert_eq!(field, "spec.ingress[0].from[0].galaxies");
    assert_eq!(verdicts, [Outcome::Unknown; 2]);
}
