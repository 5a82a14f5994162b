//! Objects and flows as others write them, through `tracer explain --batch`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod flows;
mod objects;

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
