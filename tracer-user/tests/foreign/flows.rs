//! Flows as others write them, and the verdicts others expect.

use super::*;

#[test]
fn flows_are_taken_as_programs_write_them() {
    let objects = [
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        policy(
            "p",
            &json!({"podSelector": {"matchLabels": {"app": "b"}},
                "ingress": [{"ports": [{"port": 80}]}]}),
        ),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "g"},
            "spec": {"order": 1, "ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}}]}}),
    ];
    let to_b = |more: Value| {
        let mut flow = json!({"from": "n/a", "to": "n/b"});
        for (key, value) in more.as_object().unwrap() {
            flow[key] = value.clone();
        }
        flow
    };
    for (more, verdict) in [
        (json!({"port": "80", "id": 7, "expect": "allow"}), "allowed"),
        (json!({"port": "81", "protocol": "tcp"}), "denied"),
        (json!({"port": 80, "protocol": 6}), "allowed"),
        (json!({"port": 80, "protocol": "17"}), "denied"),
        (
            json!({"protocol": "icmp", "icmp": {"type": 8, "code": 0}}),
            "allowed",
        ),
        (
            json!({"protocol": 1, "icmp": {"type": 3}, "port": null}),
            "denied",
        ),
        (json!({"protocol": "ICMP"}), "unknown"),
        (json!({"port": "http"}), "error"),
        (json!({"port": 70000}), "error"),
        (json!({"port": [80]}), "error"),
        (json!({"port": 80, "protocol": "HTTP"}), "error"),
        (json!({}), "error"),
    ] {
        let answer = by(&objects, &[to_b(more.clone())]);
        assert_eq!(answer.verdicts(), [verdict], "{more}: {:?}", answer.lines);
        let code = match verdict {
            "allowed" => 0,
            "error" => 2,
            _ => 1,
        };
        assert_eq!(answer.code, Some(code), "{more}");
    }
}

#[test]
fn standard_input_is_read_once() {
    let answer = judge(Path::new("-"), &[flow("n/a", "n/b", 80)]);
    assert_eq!((answer.code, answer.lines.len()), (Some(2), 0));
    assert!(answer.stderr.contains("--batch -"), "{}", answer.stderr);
}

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    objects: Value,
    probes: Vec<Value>,
}

/// What the engine's own test hands to the library, as files and lines.
#[test]
fn upstreams_verdicts_come_out_of_the_command_line_too() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-policy/tests/corpus");
    let mut judged = 0;
    for source in std::fs::read_dir(corpus).unwrap() {
        let source = source.unwrap().path();
        for file in std::fs::read_dir(&source).into_iter().flatten() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let case: Case = serde_json::from_str(&text).unwrap();
            let lists = ["namespaces", "pods", "policies"];
            let items: Vec<Value> = lists
                .iter()
                .flat_map(|list| case.objects[list].as_array().unwrap().clone())
                .collect();
            let probes: Vec<&Value> = case
                .probes
                .iter()
                .filter(|probe| {
                    let tags = probe["tags"].as_array().unwrap();
                    tags.iter().all(|tag| tag == "derived-from-policyTypes")
                })
                .collect();
            let end = |end: &Value| end.get("pod").or_else(|| end.get("ip")).unwrap().clone();
            let flows: Vec<Value> = probes
                .iter()
                .map(|probe| {
                    json!({"from": end(&probe["src"]), "to": end(&probe["dst"]),
                        "port": probe["port"], "protocol": probe["protocol"]})
                })
                .collect();
            let answer = by(&items, &flows);
            assert_eq!(answer.stderr, "", "{}", case.id);
            let expected: Vec<&str> = probes
                .iter()
                .map(|probe| match probe["expect"].as_str().unwrap() {
                    "allow" => "allowed",
                    _ => "denied",
                })
                .collect();
            assert_eq!(answer.verdicts(), expected, "{}", case.id);
            judged += flows.len();
        }
    }
    assert!(judged > 600, "only {judged} probes were judged");
}
