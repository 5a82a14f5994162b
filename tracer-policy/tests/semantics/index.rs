//! The index itself: policies that do not compile, isolating policies, lookups.

use super::*;

#[test]
fn a_policy_that_does_not_compile_is_named_and_never_guessed() {
    let mut cluster = base(&[("a", "podSelector: {matchLabels: {app: web}}")]);
    let broken = |spec: &str| -> k8s_openapi::api::networking::v1::NetworkPolicy {
        serde_saphyr::from_str(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: bad, namespace: a}}, spec: {{{spec}}}}}"
        ))
        .unwrap()
    };
    let cases = [
        (
            "podSelector: {}, policyTypes: [ingress]",
            "spec.policyTypes[0]: `ingress`",
        ),
        (
            "ingress: [{from: [{}]}]",
            "spec.ingress[0].from[0]: names no peer",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]",
            "spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0`",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]",
            "ipBlock.cidr",
        ),
        (
            "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}]",
            "spec.egress[0].to[0].ipBlock.except[0]: `x`",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "ipBlock cannot stand beside",
        ),
        (
            "ingress: [{ports: [{protocol: tcp}]}]",
            "spec.ingress[0].ports[0].protocol: `tcp`",
        ),
        (
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "`ICMP` is no protocol of a policy port",
        ),
        (
            "ingress: [{}, {ports: [{}, {port: 70000}]}]",
            "spec.ingress[1].ports[1].port: 70000",
        ),
        ("ingress: [{ports: [{port: 0}]}]", "port: 0 is no port"),
        (
            r#"ingress: [{ports: [{port: "80"}]}]"#,
            "`80` is no port name",
        ),
        (
            "ingress: [{ports: [{port: 80, endPort: 79}]}]",
            "spec.ingress[0].ports[0].endPort: 79 is below",
        ),
        (
            "ingress: [{ports: [{port: web, endPort: 79}]}]",
            "needs a numeric `port`",
        ),
        (
            "ingress: [{ports: [{endPort: 79}]}]",
            "needs a numeric `port`",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            "ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}]}]",
            "namespaceSelector.matchExpressions[0].operator",
        ),
    ];
    for (spec, wanted) in cases {
        let error = cluster
            .apply_network_policy(&broken(spec))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("NetworkPolicy a/bad: ") && error.contains(wanted),
            "{error}"
        );
        unknown(
            &cluster,
            &tcp("b/client", "a/web", 1),
            "what a/bad allows is not known",
        );
    }
    // What another policy allows stays allowed: policies only add.
    apply(
        &mut cluster,
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p9, namespace: a}, spec: {ingress: [{}]}}",
    );
    allowed(&cluster, &tcp("b/client", "a/web", 1));
    cluster.remove_network_policy("a", "bad");
    cluster.remove_network_policy("a", "p9");
    denied(&cluster, &tcp("b/client", "a/web", 1));
    let unnamed = k8s_openapi::api::networking::v1::NetworkPolicy::default();
    assert!(
        cluster
            .apply_network_policy(&unnamed)
            .unwrap_err()
            .to_string()
            .contains("metadata.name")
    );
}

#[test]
fn every_isolating_policy_and_the_nearest_miss() {
    let cluster = base(&[
        ("a", "podSelector: {}"),
        (
            "a",
            "podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 1}]}, {from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: 9}]}]",
        ),
        (
            "a",
            "podSelector: {matchLabels: {app: other}}, ingress: [{}]",
        ),
        ("b", "podSelector: {}, ingress: [{}]"),
    ]);
    let verdict = denied(&cluster, &tcp("b/client", "a/web", 80));
    let names: Vec<String> = verdict
        .ingress
        .isolating
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["a/p0", "a/p1"]);
    assert_eq!(verdict.egress.verdict, SideVerdict::NotIsolated);
    let miss = verdict.ingress.nearest_miss.unwrap();
    assert_eq!(miss.rule.as_deref(), Some("spec.ingress[1]"));
    assert_eq!((miss.failed, miss.item), (Failed::Port, 0));
    let names: Vec<_> = cluster
        .isolating("b", "client", tracer_policy::Direction::Ingress)
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["b/p3"]);
}

#[test]
fn lookups() {
    let mut cluster = base(&[("a", "podSelector: {}")]);
    assert_eq!(cluster.pod_count(), 3);
    assert_eq!(cluster.pods_on("n1").count(), 2);
    assert_eq!(
        cluster.pods_in("a").map(|p| &p.id.name).collect::<Vec<_>>(),
        ["host", "web"]
    );
    assert_eq!(cluster.namespace_labels("b").unwrap()["team"], "b");
    assert_eq!(
        cluster.namespace_labels("b").unwrap()["kubernetes.io/metadata.name"],
        "b"
    );
    assert_eq!(cluster.nodes().count(), 2);
    assert_eq!(cluster.policies().count(), 1);
    assert!(!cluster.is_api_server("192.168.1.100".parse().unwrap(), 6443));
    apply(
        &mut cluster,
        "{apiVersion: v1, kind: Endpoints, metadata: {name: kubernetes, namespace: default}, subsets: [{addresses: [{ip: 192.168.1.100}, {ip: 192.168.1.101}], ports: [{name: https, port: 6444}]}]}\n---\n{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.43.0.1, ports: [{name: https, port: 443}]}}",
    );
    assert_eq!(cluster.api_server_endpoints().len(), 2);
    for (ip, port, is_it) in [
        ("192.168.1.101", 6444, true),
        ("192.168.1.101", 6443, false),
        ("10.43.0.1", 443, true),
        ("10.43.0.1", 6444, false),
    ] {
        assert_eq!(
            cluster.is_api_server(ip.parse().unwrap(), port),
            is_it,
            "{ip}:{port}"
        );
    }
    cluster.remove_node("n1");
    assert_eq!(
        cluster.owner("10.10.0.11".parse().unwrap()),
        Owner::External
    );
    cluster.remove_pod("a", "web");
    cluster.remove_pod("a", "nosuch");
    assert_eq!(cluster.pod_count(), 2);
    assert!(cluster.pod("a", "web").is_none());
    assert_eq!(cluster.pods_on("n1").count(), 1);
    let id: End = "a/web".parse().unwrap();
    assert_eq!(id, End::pod("a", "web"));
}

#[test]
fn the_nearest_of_several_peers_is_the_first_of_the_nearest() {
    let miss = |peers: &str| {
        let cluster = base(&[(
            "a",
            &format!("podSelector: {{}}, ingress: [{{from: [{peers}]}}]"),
        )]);
        let miss = denied(&cluster, &tcp("b/client", "a/web", 80))
            .ingress
            .nearest_miss
            .unwrap();
        (miss.failed, miss.item)
    };
    let address = "{ipBlock: {cidr: 192.0.2.0/24}}";
    let other_pod = "{namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}";
    let here = "{podSelector: {matchLabels: {app: client}}}";
    let any_here = "{podSelector: {}}";
    assert_eq!(
        miss(&[address, other_pod, here].join(", ")),
        (Failed::Namespace, 2)
    );
    assert_eq!(
        miss(&[here, other_pod, address].join(", ")),
        (Failed::Namespace, 0)
    );
    assert_eq!(miss(&[here, here].join(", ")), (Failed::Namespace, 0));
    // Naming the very pod comes nearer than naming none.
    assert_eq!(miss(&[any_here, here].join(", ")), (Failed::Namespace, 1));
    assert_eq!(miss(&[here, any_here].join(", ")), (Failed::Namespace, 0));
    assert_eq!(miss(&[any_here, other_pod].join(", ")), (Failed::Peer, 1));
}

#[test]
fn rules_are_ranked_by_how_near_they_came() {
    let miss = |rules: &str| {
        let cluster = base(&[("a", &format!("podSelector: {{}}, ingress: [{rules}]"))]);
        let miss = denied(&cluster, &tcp("b/client", "a/web", 80))
            .ingress
            .nearest_miss
            .unwrap();
        (miss.failed, miss.rule.unwrap().to_string())
    };
    let one_label_off = "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}]}";
    let two_labels_off =
        "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: x, tier: x}}}]}";
    let far_one_off = "{from: [{podSelector: {matchLabels: {app: x}}}]}";
    let far_two_off = "{from: [{podSelector: {matchLabels: {app: x, tier: x}}}]}";
    let first = (Failed::Peer, "spec.ingress[0]".to_owned());
    let second = (Failed::Peer, "spec.ingress[1]".to_owned());
    assert_eq!(miss(&[two_labels_off, one_label_off].join(", ")), second);
    assert_eq!(miss(&[one_label_off, two_labels_off].join(", ")), first);
    assert_eq!(miss(&[far_two_off, far_one_off].join(", ")), second);
    assert_eq!(miss(&[far_one_off, far_one_off].join(", ")), first);
    // Of two whose peer fails, the one whose port would do.
    let and_port = "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}], ports: [{port: 1}]}";
    assert_eq!(miss(&[and_port, far_two_off].join(", ")), second);
    assert_eq!(miss(&[and_port, one_label_off].join(", ")), second);
    let far_and_port = "{from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 1}]}";
    assert_eq!(miss(&[far_and_port, and_port].join(", ")), second);
    // An address block of the right family is nearer than one of the other.
    let v6 = r#"{from: [{ipBlock: {cidr: "2001:db8::/32"}}]}"#;
    let v4 = "{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}";
    assert_eq!(miss(&[v6, v4].join(", ")), second);
    assert_eq!(miss(&[v4, v6].join(", ")), first);
    // A policy without rules comes last, wherever it stands.
    let cluster = base(&[
        ("a", "podSelector: {}"),
        ("a", "podSelector: {}, ingress: [{ports: [{port: 1}]}]"),
    ]);
    let verdict = denied(&cluster, &tcp("b/client", "a/web", 80));
    assert_eq!(
        verdict.ingress.nearest_miss.unwrap().policy.to_string(),
        "a/p1"
    );
    let cluster = base(&[
        ("a", "podSelector: {}, ingress: [{ports: [{port: 1}]}]"),
        ("a", "podSelector: {}"),
    ]);
    let verdict = denied(&cluster, &tcp("b/client", "a/web", 80));
    assert_eq!(
        verdict.ingress.nearest_miss.unwrap().policy.to_string(),
        "a/p0"
    );
}

#[test]
fn an_overlay_counts_where_it_would_if_it_were_applied() {
    let cluster = base(&[]);
    let with = |namespace: &str, spec: &str| {
        let yaml = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: o, namespace: {namespace}}}, spec: {{{spec}}}}}"
        );
        let overlay = [cluster
            .compile(&serde_saphyr::from_str(&yaml).unwrap())
            .unwrap()];
        let flow = tcp("b/client", "a/web", 80);
        cluster
            .evaluate_with(&flow, Profile::SPEC, &overlay)
            .verdict
    };
    assert_eq!(
        with("a", "podSelector: {matchLabels: {app: web}}"),
        Outcome::Denied
    );
    assert_eq!(
        with("a", "podSelector: {matchLabels: {app: other}}"),
        Outcome::Allowed
    );
    assert_eq!(with("a", "policyTypes: [Egress]"), Outcome::Allowed);
    assert_eq!(with("b", "policyTypes: [Ingress]"), Outcome::Allowed);
    assert_eq!(with("b", "policyTypes: [Egress]"), Outcome::Denied);
    assert!(cluster.evaluate(&tcp("b/client", "a/web", 80)).is_allowed());
}

#[test]
fn a_namespace_stays_as_long_as_it_or_something_in_it_does() {
    let mut cluster = Cluster::new();
    cluster.apply_namespace(Namespace {
        name: "alone".into(),
        labels: Labels::new(),
    });
    let policy = serde_saphyr::from_str(
        "{metadata: {name: p, namespace: implied}, spec: {podSelector: {}}}",
    )
    .unwrap();
    cluster.apply_network_policy(&policy).unwrap();
    let names = |cluster: &Cluster| {
        let mut names: Vec<_> = cluster.namespaces().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&cluster), ["alone", "implied"]);
    cluster.remove_network_policy("implied", "p");
    assert_eq!(names(&cluster), ["alone"]);
    cluster.remove_namespace("alone");
    assert_eq!(names(&cluster), Vec::<String>::new());
}

#[test]
fn policies_are_said_to_deny_jointly_where_they_deny() {
    let isolated = |second: &str| {
        let cluster = base(&[
            ("a", "podSelector: {}, policyTypes: [Ingress]"),
            ("a", second),
        ]);
        let flow = tcp("b/client", "a/web", 80);
        let lines = tracer_policy::explain::lines(&cluster, &flow, &cluster.evaluate(&flow));
        let mut lines = lines.iter().map(ToString::to_string);
        lines.find(|line| line.contains("isolated by")).unwrap()
    };
    assert_eq!(
        isolated("podSelector: {}, ingress: []"),
        "  isolated by 2 policies, which deny jointly what none of them allows: a/p0, a/p1"
    );
    assert_eq!(
        isolated("podSelector: {}, ingress: [{}]"),
        "  isolated by 2 policies: a/p0, a/p1"
    );
}
