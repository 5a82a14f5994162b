//! Objects and flows as others write them, through `tracer explain --batch`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What came back: exit code, a verdict a line, standard error.
struct Answer {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

impl Answer {
    fn verdicts(&self) -> Vec<&str> {
        self.lines
            .iter()
            .map(|line| line["verdict"].as_str().unwrap_or("error"))
            .collect()
    }
}

/// Judges flows, a JSON object each, by what stands at `cluster`.
fn judge(cluster: &Path, flows: &[Value]) -> Answer {
    let mut text = String::new();
    for flow in flows {
        writeln!(text, "{flow}").unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["explain", "--batch", "-", "--cluster"])
        .arg(cluster)
        .env_remove("TRACER_CLUSTER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Where the command gives up early nobody reads it.
    let _ = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    Answer {
        code: output.status.code(),
        lines: lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As [`judge`], by objects in a list.
fn by(items: &[Value], flows: &[Value]) -> Answer {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(file.path(), list.to_string()).unwrap();
    judge(file.path(), flows)
}

fn flow(from: &str, to: &str, port: u16) -> Value {
    json!({"from": from, "to": to, "port": port, "protocol": "TCP"})
}

fn pod(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": ip}})
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "n"}, "spec": spec})
}

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
