//! Objects that are not as the API says, or not as a server gives them.

use super::*;

#[test]
fn one_object_that_is_not_as_the_api_says_leaves_the_others_alone() {
    let rest = |mut more: Vec<Value>| {
        let closed = policy(
            "closed",
            &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
        );
        more.extend([
            pod("a", "10.0.0.1"),
            pod("b", "10.0.0.2"),
            pod("db", "10.0.0.3"),
            closed,
        ]);
        more
    };
    let flows = [
        flow("n/a", "n/b", 80),
        flow("n/a", "n/db", 80),
        flow("n/a", "192.0.2.1", 80),
    ];
    let usual = ["allowed", "denied", "allowed"];
    let selecting_b = |more: &Value| {
        let mut spec = json!({"podSelector": {"matchLabels": {"app": "b"}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        policy("odd", &spec)
    };
    let with = |pointer: &str, value: Value| {
        let mut odd = pod("odd", "10.0.0.9");
        *odd.pointer_mut(pointer).unwrap() = value;
        odd
    };
    let unread_b = ["unknown", "denied", "allowed"];
    for (odd, says, verdicts) in [
        (
            selecting_b(&json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]})),
            "NetworkPolicy n/odd: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0` is no CIDR",
            unread_b,
        ),
        (
            selecting_b(&json!({"ingress": [{"ports": [{"port": "80"}]}]})),
            "NetworkPolicy n/odd: spec.ingress[0].ports[0].port: `80` is no port name",
            unread_b,
        ),
        (
            selecting_b(&json!({"ingres": []})),
            "NetworkPolicy n/odd: spec.ingres: no field of this name",
            unread_b,
        ),
        (
            selecting_b(&json!({"ingress": "all"})),
            "NetworkPolicy n/odd: spec.ingress: invalid type: string",
            unread_b,
        ),
        // Of ingress it says nothing, whatever else is wrong with it.
        (
            selecting_b(&json!({"policyTypes": ["Egress"], "egress": 1})),
            "NetworkPolicy n/odd: spec.egress: invalid type: integer",
            usual,
        ),
        // A field that no verdict hangs on is left out alone.
        (
            with("/spec/containers/0/ports/0/containerPort", json!(0)),
            "left out",
            usual,
        ),
        (
            with("/status/phase", json!(["x"])),
            "Pod n/odd: status.phase",
            usual,
        ),
        (
            with("/status/podIP", json!("10.0.0.300")),
            "\"10.0.0.300\" is no IP address",
            ["allowed", "denied", "unknown"],
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v2", "kind": "NetworkPolicy",
                "metadata": {"name": "odd", "namespace": "m"}}),
            "networking.k8s.io/v2 is not read here",
            usual,
        ),
        (
            json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
                "metadata": {"name": "odd"}, "spec": {"nets": ["x"]}}),
            "spec.nets[0]",
            ["unknown", "denied", "unknown"],
        ),
    ] {
        let answer = by(&rest(vec![odd.clone()]), &flows);
        assert_eq!(answer.verdicts(), verdicts, "{odd}: {}", answer.stderr);
        assert_eq!(answer.code, Some(1));
        assert!(answer.stderr.contains(says), "{odd}: {}", answer.stderr);
    }
}

#[test]
fn who_a_pod_is_that_cannot_be_read_is_unknown() {
    let mut odd = pod("odd", "10.0.0.9");
    odd["metadata"]["labels"] = json!({"version": 1.5});
    let answer = by(
        &[odd, pod("a", "10.0.0.1")],
        &[
            flow("n/a", "n/odd", 80),
            flow("n/a", "10.0.0.9", 80),
            flow("n/a", "10.0.0.8", 80),
        ],
    );
    assert_eq!(
        answer.verdicts(),
        ["unknown", "unknown", "allowed"],
        "{}",
        answer.stderr
    );
    assert!(
        answer.lines[0]["reason"]
            .as_str()
            .unwrap()
            .contains("Pod n/odd could not be read")
    );
    assert!(
        answer.stderr.contains("Pod n/odd: metadata.labels.version"),
        "{}",
        answer.stderr
    );
}

#[test]
fn what_is_wrong_with_a_pod_that_verdicts_hang_on_is_not_left_out() {
    let named = policy(
        "p",
        &json!({"podSelector": {"matchLabels": {"app": "odd"}}, "ingress": [{"ports": [{"port": "web"}]}]}),
    );
    for (pointer, value, verdicts) in [
        // It has no address; whether one of the others' is its own, nobody knows.
        ("/status", json!(1), ["unknown", "unknown"]),
        ("/metadata/labels", json!(1), ["unknown", "allowed"]),
        ("/spec", json!([]), ["unknown", "allowed"]),
        ("/spec/containers", json!(1), ["unknown", "allowed"]),
        (
            "/spec/containers/0/ports/0/protocol",
            json!("tcp"),
            ["unknown", "allowed"],
        ),
        (
            "/spec/containers/0/ports/0/name",
            json!(1),
            ["unknown", "allowed"],
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(0),
            ["denied", "allowed"],
        ),
        ("/spec/containers/0/name", json!(1), ["allowed", "allowed"]),
    ] {
        let mut odd = pod("odd", "10.0.0.9");
        odd["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
        *odd.pointer_mut(pointer).unwrap() = value;
        let answer = by(
            &[odd, pod("a", "10.0.0.1"), named.clone()],
            &[flow("n/a", "n/odd", 80), flow("n/a", "192.0.2.1", 80)],
        );
        assert_eq!(answer.verdicts(), verdicts, "{pointer}: {}", answer.stderr);
    }
}

#[test]
fn a_services_port_that_is_wrong_is_no_other_port() {
    let service = |port: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "a"}, "ports": [port]}})
    };
    for (port, verdict) in [
        (json!({"port": 80, "targetPort": 8080}), "allowed"),
        (json!({"port": 80, "targetPort": 70000}), "unknown"),
        (json!({"port": 80, "protocol": "tcp"}), "unknown"),
    ] {
        let answer = by(
            &[
                service(port.clone()),
                pod("a", "10.0.0.1"),
                pod("b", "10.0.0.2"),
            ],
            &[flow("n/b", "10.96.0.1", 80)],
        );
        assert_eq!(answer.verdicts(), [verdict], "{port}: {}", answer.stderr);
    }
}

#[test]
fn null_is_an_empty_value_as_for_the_api_server() {
    let mut unlabelled = pod("a", "10.0.0.1");
    unlabelled["metadata"]["labels"]["app"] = Value::Null;
    let selector = json!({"matchLabels": {"app": ""}});
    let flows = [flow("n/b", "n/a", 80), flow("n/b", "n/a", 81)];
    for (spec, verdicts) in [
        (
            json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": null}),
            ["denied"; 2],
        ),
        (
            json!({"podSelector": selector, "ingress": [null]}),
            ["allowed"; 2],
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": null}}, "ingress": [{"from": null, "ports": null}]}),
            ["allowed"; 2],
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": null}, "matchExpressions": null},
                "ingress": [{"ports": [{"port": 80, "protocol": null}]}], "policyTypes": null}),
            ["allowed", "denied"],
        ),
    ] {
        let answer = by(
            &[unlabelled.clone(), pod("b", "10.0.0.2"), policy("p", &spec)],
            &flows,
        );
        assert_eq!(answer.verdicts(), verdicts, "{spec}");
        assert_eq!(answer.stderr, "", "{spec}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_an_error_of_the_file() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(
        file.path(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, name: b}\n",
    )
    .unwrap();
    let answer = judge(file.path(), &[flow("n/a", "n/b", 1)]);
    assert_eq!((answer.code, answer.lines.len()), (Some(2), 0));
}

#[test]
fn a_pods_host_ip_names_its_node_and_a_mapped_address_is_the_address() {
    let mut here = pod("a", "10.0.0.1");
    here["spec"]["nodeName"] = json!("n1");
    here["status"]["hostIP"] = json!("192.168.9.9");
    let closed = policy("p", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let answer = by(&[here, closed], &[flow("::ffff:192.168.9.9", "n/a", 80)]);
    assert_eq!(answer.verdicts(), ["denied"]);
    let got = answer.lines[0]["ingress"]["nearest_miss"]["got"]
        .as_str()
        .unwrap();
    assert!(got.contains("node n1 (192.168.9.9)"), "{got}");
}

#[test]
fn pods_that_a_manifest_asks_for_are_there_unless_others_are() {
    let workload = |labels: Value| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "n"},
            "spec": {"replicas": 2, "template": {"metadata": {"labels": labels},
                "spec": {"containers": []}}}})
    };
    let closed = policy(
        "p",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
    );
    let odd = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "odd", "namespace": "n"},
        "spec": {"template": {"spec": "x"}}});
    let flows = [flow("n/a", "n/db-0", 80), flow("n/a", "n/db-1", 80)];
    let objects = [
        pod("a", "10.0.0.1"),
        odd,
        workload(json!({"app": "db"})),
        closed.clone(),
    ];
    let answer = by(&objects, &flows);
    assert_eq!(answer.verdicts(), ["denied"; 2]);
    assert!(
        answer.stderr.contains("left out") && answer.stderr.contains("Deployment n/odd"),
        "{}",
        answer.stderr
    );
    // One that runs is what it says it is.
    let objects = [
        pod("a", "10.0.0.1"),
        workload(json!({"app": "db"})),
        pod("db-0", "10.0.0.2"),
        closed,
    ];
    assert_eq!(by(&objects, &flows).verdicts(), ["allowed", "denied"]);
}
