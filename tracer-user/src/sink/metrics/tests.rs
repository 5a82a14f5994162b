use super::*;

fn probe() -> Drop {
    serde_json::from_str(include_str!("../../../tests/data/probe.json")).unwrap()
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no {start}: {text}"))
}

#[test]
fn counts_packets_under_every_name_that_fits() {
    let metrics = Metrics::new(100).unwrap();
    let mut drop = probe();
    drop.count = 3;
    metrics.observe(&drop);
    drop.policy
        .as_mut()
        .unwrap()
        .isolating
        .push(crate::record::PolicyRef {
            kind: "NetworkPolicy".into(),
            namespace: Some("vault".into()),
            name: "second".into(),
        });
    metrics.observe(&drop);
    let text = metrics
        .render(Losses::default(), &Sizes::default())
        .unwrap();
    assert_eq!(
        line(&text, "tracer_drops_total{"),
        r#"tracer_drops_total{action="drop",class="kubelet-probe",destination_namespace="vault",destination_workload="vault",direction="ingress",reason="TC_EGRESS",source_namespace="",source_workload=""} 6"#
    );
    assert!(text.contains(
        r#"tracer_policy_drops_total{class="kubelet-probe",direction="ingress",policy="vault-policy",policy_namespace="vault"} 6"#
    ), "{text}");
    assert!(
        text.contains(r#"policy="second",policy_namespace="vault"} 3"#),
        "{text}"
    );
    assert!(text.contains(
        r#"tracer_invisible_drops_total{class="kubelet-probe",namespace="vault",workload="vault"} 6"#
    ), "{text}");
    assert!(!text.contains("tracer_disagreements_total{"), "{text}");
}

#[test]
fn a_disagreement_is_counted_apart_from_denials() {
    let metrics = Metrics::new(100).unwrap();
    let mut drop = probe();
    drop.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed;
    metrics.observe(&drop);
    drop.class = Some(Class::ConntrackInvalid);
    metrics.observe(&drop);
    let text = metrics
        .render(Losses::default(), &Sizes::default())
        .unwrap();
    assert_eq!(
        line(&text, "tracer_disagreements_total{"),
        r#"tracer_disagreements_total{direction="ingress",namespace="vault",workload="vault"} 1"#
    );
    assert!(!text.contains("tracer_policy_drops_total{"), "{text}");
}

#[test]
fn a_policy_that_isolates_and_denies_is_counted_once() {
    let metrics = Metrics::new(100).unwrap();
    let mut drop = probe();
    let policy = drop.policy.as_mut().unwrap();
    policy.denied_by = Some(crate::record::DeniedBy {
        policy: policy.isolating[0].clone(),
        rule: "spec.ingress[0]".into(),
    });
    metrics.observe(&drop);
    let text = metrics
        .render(Losses::default(), &Sizes::default())
        .unwrap();
    let counted = line(&text, "tracer_policy_drops_total{");
    assert!(counted.ends_with("} 1"), "{counted}");
}

#[test]
fn a_full_family_folds_and_says_so_and_loses_nothing() {
    let metrics = Metrics::new(2).unwrap();
    for pod in 0..5 {
        let mut drop = probe();
        drop.destination.as_mut().unwrap().workload = Some(format!("w{pod}"));
        metrics.observe(&drop);
        metrics.observe(&drop);
    }
    let text = metrics
        .render(Losses::default(), &Sizes::default())
        .unwrap();
    let sum: u64 = text
        .lines()
        .filter(|line| line.starts_with("tracer_drops_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, 10);
    assert!(text.contains(r#"destination_workload="other""#), "{text}");
    let series = r#"tracer_metric_series{metric="tracer_drops_total"} 3"#;
    assert!(text.lines().any(|line| line == series), "{text}");
    assert!(
        text.contains(r#"tracer_series_folded_total{metric="tracer_drops_total"} 6"#),
        "{text}"
    );
    assert!(text.contains(r#"tracer_series_folded_total{metric="tracer_policy_drops_total"} 0"#));
}

#[test]
fn what_others_counted_is_read_at_scrape_time() {
    let metrics = Metrics::new(2).unwrap();
    let losses = Losses {
        kernel: 4,
        roomless: 4,
        decode: 1,
        cost: (100, 5),
    };
    metrics.render(losses, &Sizes::default()).unwrap();
    let text = metrics
        .render(
            Losses {
                kernel: 6,
                ..losses
            },
            &Sizes {
                flows: (3, 16_384),
                objects: vec![("pods", 12)],
                waiting: 1,
                events: 2,
                readers: 4,
                history: (5, 600),
            },
        )
        .unwrap();
    assert_eq!(
        line(&text, r#"tracer_events_lost_total{stage="kernel"}"#),
        r#"tracer_events_lost_total{stage="kernel"} 6"#
    );
    assert!(text.contains("tracer_kernel_ns_total 100"));
    assert!(text.contains("tracer_kernel_runs_total 5"));
    for size in [
        "tracer_flow_table_entries 3",
        "tracer_flow_table_capacity 16384",
        r#"tracer_cluster_objects{kind="pods"} 12"#,
        "tracer_drops_waiting 1",
        "tracer_kubernetes_events_waiting 2",
        "tracer_stream_readers 4",
        "tracer_stream_history_drops 5",
        "tracer_stream_history_bytes 600",
        r#"tracer_metric_series{metric="tracer_drops_total"} 0"#,
    ] {
        assert!(text.lines().any(|line| line == size), "{size}: {text}");
    }
}

#[test]
fn series_expire_with_their_objects() {
    let object = |spec: serde_json::Value| {
        let mut object = spec;
        object["metadata"]["namespace"] = "vault".into();
        object
    };
    let pod = object(
        serde_json::json!({"spec": {"containers": []}, "metadata": {"name": "vault-0",
        "ownerReferences": [{"kind": "StatefulSet", "name": "vault", "controller": true, "apiVersion": "apps/v1",
            "uid": "u"}]}}),
    );
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
    let pod = Pod::try_from(&pod).unwrap();
    let policy = object(serde_json::json!({"metadata": {"name": "vault-policy"},
        "spec": {"podSelector": {}}}));
    let policy = serde_json::from_value(policy).unwrap();

    let metrics = Metrics::new(1).unwrap();
    metrics.observe(&probe());
    let mut other = probe();
    other.destination.as_mut().unwrap().workload = Some("unseal".to_owned());
    metrics.observe(&other);
    let at = |cluster: &Cluster, later: Duration| {
        metrics.expire(cluster, Instant::now() + later);
        let text = metrics
            .render(Losses::default(), &Sizes::default())
            .unwrap();
        [
            "tracer_drops_total{",
            "tracer_policy_drops_total{",
            "tracer_invisible_drops_total{",
        ]
        .map(|name| {
            let own = |line: &&str| line.starts_with(name) && line.contains("\"vault\"");
            text.lines().filter(own).count()
        })
    };
    let mut cluster = Cluster::new();
    cluster.apply_pod(pod);
    cluster.apply_network_policy(&policy).unwrap();
    let soon = Duration::from_mins(14);
    let late = Duration::from_mins(16);
    assert_eq!(at(&cluster, late), [1, 1, 1]);
    cluster.remove_network_policy("vault", "vault-policy");
    assert_eq!(at(&cluster, late), [1, 0, 1]);
    cluster.remove_pod("vault", "vault-0");
    assert_eq!(at(&cluster, soon), [1, 0, 1]);
    assert_eq!(at(&cluster, late), [0, 0, 0]);

    // What was folded into `other` is nobody's, and there is room for others again.
    let text = metrics
        .render(Losses::default(), &Sizes::default())
        .unwrap();
    assert!(text.contains("destination_workload=\"other\""), "{text}");
    metrics.observe(&probe());
    assert_eq!(at(&cluster, soon), [1, 1, 1]);
    assert!(metrics.series().iter().any(|series| series.packets == 1));
}
