//! The command line from outside: exit codes, errors that name what is wrong, closed pipes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "cli/lint.rs"]
mod lint;
#[path = "cli/suggest.rs"]
mod suggest;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tracer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
    command
        .args(args)
        .env_remove("TRACER_CLUSTER")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    outcome(&tracer(args).output().unwrap())
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Asserts exit code and that standard error says each of `says`; nothing may go to standard output.
fn fails(args: &[&str], code: i32, says: &[&str]) {
    let (status, stdout, stderr) = run(args);
    assert_eq!(status, Some(code), "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    for piece in says {
        assert!(
            stderr.contains(piece),
            "{args:?}: no {piece:?} in {stderr:?}"
        );
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn recorded(lines: usize) -> tempfile::NamedTempFile {
    let drop = include_str!("data/probe.json").replace('\n', "");
    file(&format!("{drop}\n").repeat(lines))
}

#[test]
fn a_cluster_file_that_is_missing_malformed_or_wrong_is_named_with_what_was_expected() {
    let explain = |path: &str, says: &[&str]| {
        fails(
            &[
                "explain",
                "--cluster",
                path,
                "--from",
                "a/b",
                "--to",
                "1.2.3.4",
                "--port",
                "1",
            ],
            2,
            says,
        );
    };
    explain(
        "/no/such/cluster.yaml",
        &["/no/such/cluster.yaml", "No such file"],
    );
    let broken = file("kind: Pod\nmetadata: {name: x\n");
    explain(path(&broken), &[path(&broken)]);
    let wrong = file(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ok}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ok}\n\
         spec: {podSelector: {}, ingress: yes please}\n",
    );
    let lint = |path: &str, says: &[&str]| {
        fails(&["lint", path], 2, says);
        fails(&["lint", "--cluster", path], 2, says);
    };
    lint(path(&wrong), &[path(&wrong), "document 2", "spec.ingress"]);
    let cidr = file(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ok}\n\
         spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}\n",
    );
    lint(
        path(&cidr),
        &[
            "ok/p",
            "spec.ingress[0].from[0].ipBlock.cidr",
            "10.0.0.0/99",
        ],
    );
}

#[test]
fn unknown_options_and_values_exit_with_2_and_say_what_fits() {
    fails(&["watch", "--colour"], 2, &["--colour"]);
    fails(&["watch", "-o", "xml"], 2, &["xml", "compact", "json"]);
    fails(&["watch", "--color", "blue"], 2, &["blue", "auto"]);
    fails(
        &["watch", "--class", "probes"],
        2,
        &["--class probes", "kubelet-probe"],
    );
    fails(
        &["watch", "--reasons", "NETFLITER_DROP"],
        2,
        &["NETFLITER_DROP", "NETFILTER_DROP"],
    );
    fails(&["watch", "--duration", "soon"], 2, &["soon", "30s"]);
    fails(
        &["explain", "--from", "a/b", "--to", "1.2.3.4", "--port", "1"],
        2,
        &["--cluster"],
    );
    fails(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn a_recording_that_is_no_recording_is_named_with_its_line() {
    let drops = file("{\"time\": 1}\n");
    fails(
        &["watch", "--input", path(&drops)],
        2,
        &[path(&drops), "line 1", "recorded drop"],
    );
    fails(
        &["watch", "--input", "/no/such/drops.jsonl"],
        2,
        &["/no/such/drops.jsonl"],
    );
}

#[test]
fn the_past_needs_an_agent_or_a_recording() {
    fails(
        &["watch", "--last", "3", "--socket", "/no/such/socket"],
        3,
        &["/no/such/socket", "--input", "tracer agent"],
    );
}

#[test]
fn without_btf_it_says_so_and_exits_with_3() {
    fails(
        &["watch", "--btf", "/no/such/btf", "--cluster", "none"],
        3,
        &["/no/such/btf", "BTF"],
    );
}

#[test]
fn what_is_not_pinned_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("0123456789abcdef");
    std::fs::create_dir(&other).unwrap();
    fails(
        &["agent", "--unpin", "--pin", folder.path().to_str().unwrap()],
        3,
        &[folder.path().to_str().unwrap(), "not on a bpffs"],
    );
    assert!(other.exists());
    fails(
        &["agent", "--unpin", "--pin", "none"],
        2,
        &["--unpin", "--pin none"],
    );
}

#[test]
fn without_privilege_it_names_the_capabilities_and_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The build folder may be closed to others.
    let binary = folder.path().join("tracer");
    std::fs::copy(env!("CARGO_BIN_EXE_tracer"), &binary).unwrap();
    let mut command = Command::new(binary);
    command
        .args(["watch", "--cluster", "none"])
        .stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534).current_dir("/");
    }
    let (status, stdout, stderr) = outcome(&command.output().unwrap());
    assert_eq!(status, Some(3), "{stderr}");
    assert_eq!(stdout, "");
    assert!(
        stderr.contains("CAP_BPF") && stderr.contains("CAP_PERFMON"),
        "{stderr}"
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let drops = recorded(20_000);
    for output in ["compact", "wide", "json"] {
        let mut child = tracer(&["watch", "--input", path(&drops), "-o", output])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let (status, _, stderr) = outcome(&child.wait_with_output().unwrap());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{output}");
    }
}

#[test]
fn a_replay_gives_back_what_was_recorded_and_filters_it() {
    let drops = recorded(3);
    let (status, stdout, _) = run(&["watch", "--input", path(&drops), "-o", "json"]);
    assert_eq!(status, Some(0));
    assert_eq!(stdout.lines().count(), 3);
    let first: serde_json::Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    let given: serde_json::Value = serde_json::from_str(include_str!("data/probe.json")).unwrap();
    assert_eq!(first, given);
    for (filter, lines) in [
        (&["--class", "kubelet-probe"][..], 3),
        (&["--not", "--class", "kubelet-probe"], 0),
        (&["-n", "vault", "--count", "2"], 2),
        (&["--last", "1"], 1),
        (&["--since", "1s"], 0),
        (&["--node", "node-b"], 0),
    ] {
        let mut args = vec!["watch", "--input", path(&drops), "-o", "json"];
        args.extend(filter);
        let (status, stdout, stderr) = run(&args);
        assert_eq!(status, Some(0), "{filter:?}: {stderr}");
        assert_eq!(stdout.lines().count(), lines, "{filter:?}");
    }
}

#[test]
fn the_last_drops_are_the_last_of_those_that_pass_the_filter() {
    let mut drop: serde_json::Value =
        serde_json::from_str(include_str!("data/probe.json")).unwrap();
    let probe = drop.to_string();
    drop["class"] = "dns".into();
    let drops = file(&format!("{probe}\n{drop}\n"));
    let (status, stdout, _) = run(&[
        "watch",
        "--input",
        path(&drops),
        "--class",
        "kubelet-probe",
        "--last",
        "1",
        "-o",
        "json",
    ]);
    assert_eq!(status, Some(0));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
}

#[test]
fn recording_a_replay_writes_the_same_lines() {
    let drops = recorded(2);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.jsonl");
    let (status, _, stderr) = run(&[
        "watch",
        "--input",
        path(&drops),
        "--record",
        copy.to_str().unwrap(),
    ]);
    assert_eq!(status, Some(0), "{stderr}");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let values = |text: &str| -> Vec<serde_json::Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    assert_eq!(values(&read(&copy)), values(&read(drops.path())));
}

#[test]
fn output_is_coloured_only_where_asked_or_on_a_terminal() {
    let drops = recorded(1);
    let escape = '\u{1b}';
    let args = ["watch", "--input", path(&drops)];
    assert!(!run(&args).1.contains(escape));
    assert!(
        run(&[&args[..], &["--color", "always"]].concat())
            .1
            .contains(escape)
    );
    for line in run(&args).1.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

const INCIDENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/incident.yaml");

#[test]
fn explain_says_why_and_exits_with_1_where_it_is_denied() {
    let explain = |to: &str, port: &str| {
        run(&[
            "explain",
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
    let (status, stdout, stderr) = explain("10.43.0.1", "443");
    assert_eq!(status, Some(1), "{stderr}");
    for piece in [
        "DENIED",
        "vault/vault-policy spec.egress[0]",
        "192.168.1.100",
    ] {
        assert!(stdout.contains(piece), "no {piece:?} in {stdout}");
    }
    let (status, stdout, _) = explain("vault/vault-1", "8200");
    assert_eq!(status, Some(0), "{stdout}");
    fails(
        &[
            "explain",
            "--cluster",
            INCIDENT,
            "--from",
            "vault/vault-9",
            "--to",
            "1.2.3.4",
            "--port",
            "1",
        ],
        2,
        &["no pod vault/vault-9"],
    );
}

#[test]
fn a_batch_keeps_its_order_and_names_the_line_that_is_none() {
    let flows = file(
        "{\"from\":\"vault/vault-0\",\"to\":\"vault/vault-1\",\"port\":8200}\n\
         {\"from\":\"vault/vault-0\"}\n\
         {\"from\":\"10.42.1.1\",\"to\":\"vault/vault-0\",\"port\":8200,\"protocol\":\"TCP\"}\n",
    );
    let (status, stdout, stderr) =
        run(&["explain", "--cluster", INCIDENT, "--batch", path(&flows)]);
    assert_eq!(status, Some(2));
    let lines: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["verdict"], "allowed");
    assert!(
        lines[1]["error"]
            .as_str()
            .unwrap()
            .contains("missing field `to`"),
        "{stdout}"
    );
    assert_eq!(lines[2]["verdict"], "denied");
    assert_eq!(lines[2]["ingress"]["isolating"][0]["name"], "vault-policy");
    assert!(stderr.contains("line 2"), "{stderr}");
}

#[test]
fn suggest_cures_what_was_recorded() {
    let drops = recorded(2);
    let (status, stdout, stderr) =
        run(&["suggest", "--cluster", INCIDENT, "--input", path(&drops)]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("cidr: 10.42.1.1/32") && stdout.contains("port: 8200"),
        "{stdout}"
    );
    assert!(!stdout.contains("0.0.0.0/0"));
    let cluster = std::fs::read_to_string(INCIDENT).unwrap();
    let cured = file(&format!("{cluster}---\n{stdout}"));
    let (status, stdout, stderr) = run(&[
        "explain",
        "--cluster",
        path(&cured),
        "--from",
        "10.42.1.1",
        "--to",
        "vault/vault-0",
        "--port",
        "8200",
    ]);
    assert_eq!(status, Some(0), "{stdout}{stderr}");
}

#[test]
fn lint_finds_the_incidents_mistakes_and_says_where() {
    let (status, stdout, stderr) = run(&["lint", INCIDENT]);
    assert_eq!(status, Some(1), "{stderr}");
    for rule in ["probe-blocked", "apiserver-blocked", "dns-blocked"] {
        assert!(
            stdout.contains("incident.yaml:86: ") && stdout.contains(rule),
            "{stdout}"
        );
    }
    assert_eq!(run(&["lint", INCIDENT, "--fail-on", "never"]).0, Some(0));
    assert_eq!(run(&["lint", INCIDENT, "-n", "default"]).0, Some(0));
    let sarif: serde_json::Value =
        serde_json::from_str(&run(&["lint", INCIDENT, "-o", "sarif"]).1).unwrap();
    let first = &sarif["runs"][0]["results"][0];
    assert_eq!(
        first["locations"][0]["physicalLocation"]["region"]["startLine"],
        86
    );
    let known = sarif["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .unwrap();
    assert!(
        known.iter().any(|rule| rule["id"] == first["ruleId"]),
        "{first}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&run(&["lint", INCIDENT, "-o", "json"]).1).unwrap();
    assert_eq!(json[0]["line"], 86);
}

#[test]
fn lint_knows_workloads_by_their_templates_and_fields_by_their_lines() {
    const MANIFESTS: &str = include_str!("data/manifests.yaml");
    let manifests = file(MANIFESTS);
    let (status, stdout, stderr) = run(&["lint", path(&manifests)]);
    assert_eq!(status, Some(1), "{stderr}");
    let line_of = |text: &str| MANIFESTS.lines().position(|l| l.contains(text)).unwrap() + 1;
    let policy = line_of("apiVersion: networking");
    for (line, says) in [
        (
            policy,
            "[probe-blocked] shop/web: the kubelet probes pod shop/web-* on port 8080/TCP",
        ),
        (
            policy,
            "[dns-blocked] shop/web: pod shop/web-* cannot reach",
        ),
        (line_of("# selects nothing"), "[peer-in-other-namespace]"),
    ] {
        let at = format!(":{line}: ");
        let found = stdout.lines().any(|l| l.contains(&at) && l.contains(says));
        assert!(found, "{at}{says}\n{stdout}");
    }
    // Its service account says that no token is mounted.
    assert!(!stdout.contains("apiserver-blocked"), "{stdout}");
    let mounted = file(&MANIFESTS.replace("Token: false", "Token: true"));
    assert!(
        run(&["lint", path(&mounted)])
            .1
            .contains("apiserver-blocked")
    );
    // What a controller has made already is judged as it is.
    let with_pod = file(&format!(
        "{MANIFESTS}---\n{{apiVersion: v1, kind: Pod, metadata: {{name: web-1-x, namespace: shop, labels: {{pod-template-hash: '1', app: web}}, \
         ownerReferences: [{{kind: ReplicaSet, name: web-1, controller: true, apiVersion: apps/v1, uid: u}}]}}, spec: {{containers: []}}}}\n"
    ));
    assert!(!run(&["lint", path(&with_pod)]).1.contains("web-*"));
    let broken = file(&MANIFESTS.replace("containerPort: 8080", "containerPort: 0"));
    fails(
        &["lint", path(&broken)],
        2,
        &[
            "Deployment shop/web: spec.template.spec.containers[0].ports[0].containerPort: 0 is no port number",
        ],
    );
}

#[test]
fn lint_judges_a_new_policy_by_the_cluster_it_is_for() {
    let policy = file(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: new, namespace: vault}\n\
         spec: {podSelector: {}, policyTypes: [Ingress]}\n",
    );
    let alone = run(&["lint", path(&policy)]);
    assert_eq!(alone.0, Some(0), "no pods, no findings: {}", alone.1);
    assert!(alone.2.contains("no pod and no workload"), "{}", alone.2);
    let (status, stdout, stderr) = run(&["lint", path(&policy), "--cluster", INCIDENT]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stdout.contains("vault/new"), "{stdout}");
    assert!(
        !stdout.contains("vault/vault-policy"),
        "what was there before is not this change's: {stdout}"
    );
}
