//! The `DaemonSet`, and the rights of its account.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracer::cluster::Kind;
use tracer::stream::{Access, History, Server};

use crate::read;

fn daemonset() -> Value {
    serde_saphyr::from_str(&read("deploy/base/daemonset.yaml")).expect("YAML")
}

#[test]
fn the_agent_may_pin_where_security_modules_are_at_work() {
    let daemonset = daemonset();
    let template = &daemonset["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(
        mounts
            .iter()
            .any(|mount| mount["mountPath"] == "/sys/fs/bpf")
    );
    // The default profiles of AppArmor and SELinux forbid it.
    let name = container["name"].as_str().expect("a name");
    let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
    assert_eq!(template["metadata"]["annotations"][key], "unconfined");
    let linux = &container["securityContext"]["seLinuxOptions"];
    assert_eq!(linux["type"], "spc_t");
    assert_eq!(container["securityContext"]["privileged"], false);
}

#[test]
fn the_agent_runs_on_linux_and_answers_the_kubelet_on_either_family() {
    let spec = &daemonset()["spec"]["template"]["spec"];
    assert_eq!(spec["nodeSelector"]["kubernetes.io/os"], "linux");
    let container = &spec["containers"][0];
    let env = container["env"].as_array().expect("variables");
    let address = env
        .iter()
        .find(|one| one["name"] == "TRACER_METRICS_ADDR")
        .and_then(|one| one["value"].as_str());
    let address: std::net::SocketAddr = address.expect("an address").parse().expect("an address");
    assert_eq!(address.ip(), std::net::Ipv6Addr::UNSPECIFIED);
    assert_eq!(container["ports"][0]["containerPort"], address.port());
}

#[test]
fn before_a_stop_the_agent_tells_what_waits_and_takes_nothing_out() {
    let spec = &daemonset()["spec"]["template"]["spec"];
    let command = &spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    let command: Vec<&str> = command
        .as_array()
        .expect("a command")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let ["/tracer", arguments @ ..] = command.as_slice() else {
        panic!("the image has nothing but /tracer: {command:?}");
    };
    // Five seconds of it, and then what SIGTERM has it do.
    assert!(spec["terminationGracePeriodSeconds"].as_u64() >= Some(10));

    let folder = tempfile::tempdir().expect("a folder");
    let (socket, pins) = (folder.path().join("s"), folder.path().join("pins"));
    fs::create_dir(&pins).expect("a folder");
    let waiting = watch::Sender::new(1);
    let (stop, watched) = (CancellationToken::new(), waiting.subscribe());
    let (sender, listens) = channel();
    let server = std::thread::spawn({
        let (socket, stop) = (socket.clone(), stop.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let access = Access::default();
                let server = Server::bind(&socket, access, "node-1", History::default());
                let server = server.expect("a socket");
                sender.send(()).expect("a test");
                server
                    .serve(Arc::new(|| None), Arc::new([watched]), stop)
                    .await;
            });
        }
    });
    listens.recv().expect("a server");
    let mut hook = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .env("TRACER_SOCKET", &socket)
        .env("TRACER_PIN", &pins)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the hook");
    // It is there, and asks.
    while waiting.receiver_count() < 2 {
        assert!(hook.try_wait().expect("a status").is_none(), "it waits");
        std::thread::yield_now();
    }
    waiting.send_replace(0);
    let output = hook.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"everything is told\n");
    assert!(pins.is_dir());
    stop.cancel();
    server.join().expect("a server's end");
}

#[test]
fn the_agent_may_do_what_it_does_and_no_more() {
    let text = read("deploy/base/rbac.yaml");
    let role = text
        .split("---\n")
        .find(|part| part.contains("kind: ClusterRole\n"))
        .expect("a role");
    let role: Value = serde_saphyr::from_str(role).expect("YAML");
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        if rule["apiGroups"] == serde_json::json!(["events.k8s.io"]) {
            assert_eq!(rule["resources"], serde_json::json!(["events"]));
            assert_eq!(rule["verbs"], serde_json::json!(["create", "patch"]));
            continue;
        }
        assert_eq!(rule["verbs"], serde_json::json!(["list", "watch"]));
        for group in rule["apiGroups"].as_array().expect("groups") {
            for resource in rule["resources"].as_array().expect("resources") {
                granted.insert((group.to_string(), resource.to_string()));
            }
        }
    }
    let read: BTreeSet<_> = Kind::ALL
        .into_iter()
        .flat_map(|kind| kind.versions().iter().map(move |version| (kind, version)))
        .map(|(kind, version)| {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            (format!("{group:?}"), format!("{:?}", kind.plural()))
        })
        .collect();
    assert_eq!(granted, read);
}
