//! `tracer suggest` from recorded drops, and from an agent's, which `watch` reads the same way.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::{INCIDENT, fails, file, path, run};

/// A recorded drop of the incident's: `source` and `destination` as in the record, `rest` merged over it.
fn dropped(
    source: serde_json::Value,
    destination: serde_json::Value,
    rest: serde_json::Value,
) -> String {
    let mut drop: serde_json::Value =
        serde_json::from_str(include_str!("../data/probe.json")).unwrap();
    let record = drop.as_object_mut().unwrap();
    for left_out in [
        "class",
        "direction",
        "policy",
        "probe",
        "symptom",
        "hint",
        "tcp_flags",
    ] {
        record.remove(left_out);
    }
    record.insert("source".into(), source);
    record.insert("destination".into(), destination);
    if let serde_json::Value::Object(rest) = rest {
        record.extend(rest);
    }
    format!("{drop}\n")
}

fn vault_0(port: u16) -> serde_json::Value {
    json!({"ip": "10.42.1.10", "port": port, "kind": "pod", "namespace": "vault", "pod": "vault-0",
        "workload": "vault", "labels": {"app.kubernetes.io/name": "vault"}})
}

fn coredns(port: u16) -> serde_json::Value {
    json!({"ip": "10.42.1.2", "port": port, "kind": "pod", "namespace": "kube-system",
        "pod": "coredns-7b9f-x2x", "workload": "coredns", "labels": {"k8s-app": "kube-dns"}})
}

/// What is suggested for recorded drops of the incident's, and what is said beside it.
fn suggested(drops: &str, more: &[&str]) -> (String, String) {
    let drops = file(drops);
    let args = ["suggest", "--cluster", INCIDENT, "--input", path(&drops)];
    let (status, stdout, stderr) = run(&[&args[..], more].concat());
    assert_eq!(status, Some(0), "{stderr}");
    (stdout, stderr)
}

#[test]
fn suggest_takes_recorded_drops_of_every_protocol() {
    let lookup = dropped(vault_0(43210), coredns(53), json!({"protocol": "UDP"}));
    let call = dropped(
        vault_0(43211),
        coredns(9153),
        json!({"protocol": "TCP", "tcp_flags": ["SYN"]}),
    );
    let both = format!("{lookup}{call}");
    let ports = |more: &[&str]| {
        let (stdout, stderr) = suggested(&both, more);
        let has = |port: &str| stdout.contains(&format!("port: {port}"));
        let found = (has("53"), has("9153"));
        assert_eq!(
            stdout.contains("protocol: UDP"),
            found.0,
            "{stdout}{stderr}"
        );
        found
    };
    assert_eq!(ports(&[]), (true, true));
    // Where they are written, they are filters.
    assert_eq!(ports(&["--protocol", "UDP"]), (true, false));
    assert_eq!(ports(&["--port", "9153"]), (false, true));
}

#[test]
fn suggest_says_why_it_suggests_nothing_once() {
    let filtered = dropped(
        vault_0(43211),
        json!({"ip": "192.0.2.1", "port": 443, "kind": "external"}),
        json!({"protocol": "TCP", "tcp_flags": ["SYN"], "drop": {"reason": "IP_RPFILTER"}}),
    );
    let (stdout, stderr) = suggested(&filtered.repeat(3), &[]);
    assert_eq!(stdout, "");
    let says = "nothing to suggest for vault/vault-0 → 192.0.2.1 port 443/TCP: the kernel dropped it for IP_RPFILTER";
    assert_eq!(stderr.matches(says).count(), 1, "{stderr}");
    assert!(!stderr.contains("no drops"), "{stderr}");
    let answer = dropped(coredns(53), vault_0(40000), json!({"protocol": "UDP"}));
    let (stdout, _) = suggested(&answer, &[]);
    assert!(
        stdout.contains("vault-allow-egress") && stdout.contains("port: 53"),
        "{stdout}"
    );
    assert!(!stdout.contains("40000"), "{stdout}");
}

#[test]
fn suggest_refuses_port_0_and_flows_that_cannot_exist() {
    let suggest = |to: &str, port: &str| {
        run(&[
            "suggest",
            "--cluster",
            INCIDENT,
            "--from",
            "vault/vault-0",
            "--to",
            to,
            "--port",
            port,
        ])
    };
    let (status, stdout, stderr) = suggest("192.0.2.1", "0");
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("--port 0"), "{stderr}");
    let (status, stdout, stderr) = suggest("2001:db8::1", "443");
    assert_eq!((status, stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains("no address of the same family"), "{stderr}");
}

/// An agent that sends these drops to the first who asks; what it was asked comes back.
fn agent(socket: &Path, drops: String) -> std::thread::JoinHandle<serde_json::Value> {
    use std::io::BufRead as _;
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        std::io::BufReader::new(&stream)
            .read_line(&mut request)
            .unwrap();
        writeln!(&stream, "{}", json!({"version": 1, "node": "node-a"})).unwrap();
        (&stream).write_all(drops.as_bytes()).unwrap();
        serde_json::from_str(&request).unwrap()
    })
}

#[test]
fn suggest_takes_the_agents_drops_where_none_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tracer.sock");
    let lookup = dropped(vault_0(43210), coredns(53), json!({"protocol": "UDP"}));
    let call = dropped(
        vault_0(43211),
        coredns(9153),
        json!({"protocol": "TCP", "tcp_flags": ["SYN"]}),
    );
    let ask = |more: &[&str]| {
        let listening = agent(&socket, format!("{lookup}{call}"));
        let args = [
            "suggest",
            "--cluster",
            INCIDENT,
            "--socket",
            socket.to_str().unwrap(),
        ];
        let (status, stdout, stderr) = run(&[&args[..], more].concat());
        let asked = listening.join().unwrap();
        std::fs::remove_file(&socket).unwrap();
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stderr.contains("drops on node-a"), "{stderr}");
        let has = |port: &str| stdout.contains(&format!("port: {port}"));
        (asked, has("53"), has("9153"))
    };
    let (asked, dns, metrics) = ask(&[]);
    assert_eq!((dns, metrics), (true, true));
    assert_eq!(asked["follow"], false);
    assert!(asked["since"].is_string(), "{asked}");
    // The last of those that pass the filters, which the agent does not know.
    let (asked, dns, metrics) = ask(&["--last", "1", "--protocol", "UDP"]);
    assert_eq!((dns, metrics), (true, false));
    assert!(asked.get("last").is_none(), "{asked}");
    let (asked, ..) = ask(&["--duration", "1h"]);
    assert_eq!(asked["follow"], true);
    assert!(asked.get("since").is_none(), "{asked}");
    fails(
        &[
            "suggest",
            "--cluster",
            INCIDENT,
            "--socket",
            socket.to_str().unwrap(),
        ],
        3,
        &["tracer.sock", "tracer agent", "--input"],
    );
}

#[test]
fn watch_shows_the_last_of_the_agents_drops_that_pass() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tracer.sock");
    let lookup = dropped(vault_0(43210), coredns(53), json!({"protocol": "UDP"}));
    let call = dropped(vault_0(43211), coredns(9153), json!({"protocol": "TCP"}));
    let listening = agent(&socket, format!("{lookup}{lookup}{call}"));
    let socket = socket.to_str().unwrap();
    let args = ["watch", "--socket", socket, "-o", "json", "--last", "1"];
    let (status, stdout, stderr) = run(&[&args[..], &["--protocol", "UDP"]].concat());
    assert_eq!(status, Some(0), "{stderr}");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&stdout), parse(&lookup));
    let asked = listening.join().unwrap();
    assert_eq!(asked["follow"], false);
    assert!(asked.get("last").is_none(), "{asked}");
}
