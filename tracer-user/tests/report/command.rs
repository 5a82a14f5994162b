//! The command: where it reads and writes, what it says, how it ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::html::Html;
use crate::{CLUSTER, INCIDENT};

fn tracer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
    command
        .args(args)
        .env_remove("TRACER_CLUSTER")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tracer(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

pub(crate) fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(".jsonl")
        .tempfile()
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

pub(crate) fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// The page of a recording, with more arguments.
pub(crate) fn page(recording: &str, args: &[&str]) -> Html {
    let drops = file(recording);
    let mut all = vec!["report", "--input", path(&drops)];
    all.extend(args);
    let (status, stdout, stderr) = run(&all);
    assert_eq!(status, Some(0), "{args:?}: {stderr}");
    let html = Html::parse(&stdout);
    html.assert_sound();
    html
}

#[test]
fn it_writes_to_standard_output_or_to_a_file_and_reads_standard_input() {
    let drops = file(INCIDENT);
    let given = ["report", "--cluster", "none", "--input"];
    let (status, stdout, stderr) = run(&[&given[..], &[path(&drops)]].concat());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("<!DOCTYPE html>"), "{stdout}");

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("incident.html");
    let out = out.to_str().unwrap();
    let (status, nothing, stderr) = run(&[&given[..], &[path(&drops), "-o", out]].concat());
    assert_eq!((status, nothing.as_str()), (Some(0), ""));
    assert!(stderr.contains(out), "{stderr}");
    assert_eq!(std::fs::read_to_string(out).unwrap(), stdout);

    let mut child = tracer(&[&given[..], &["-", "-o", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(INCIDENT.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let read = String::from_utf8(output.stdout).unwrap();
    assert!(read.contains("from standard input"));
    let body = |page: &str| {
        page.split("<main")
            .nth(1)
            .unwrap()
            .split("</main>")
            .next()
            .unwrap()
            .len()
    };
    assert!(body(&read).abs_diff(body(&stdout)) < 100);
}

#[test]
fn what_cannot_be_read_or_written_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("page.html");
    let out = out.to_str().unwrap();
    let broken = file(&format!("{INCIDENT}{{\"time\":1}}\n"));
    let good = file(INCIDENT);
    let line = format!("line {}: ", INCIDENT.lines().count() + 1);
    for (args, says) in [
        (
            &["--input", path(&broken), "-o", out][..],
            &[path(&broken), &line, "recorded drop"][..],
        ),
        (
            &["--input", "/no/such.jsonl", "-o", out],
            &["/no/such.jsonl", "No such file"],
        ),
        (&["-o", out], &["--input"]),
        (
            &["--input", path(&good), "-o", "/no/such/page.html"],
            &["cannot write /no/such/page.html"],
        ),
        (
            &["--input", path(&good), "-o", out, "--class", "probes"],
            &["--class probes", "kubelet-probe"],
        ),
        (
            &[
                "--input",
                path(&good),
                "-o",
                out,
                "--cluster",
                "/no/such.yaml",
            ],
            &["/no/such.yaml"],
        ),
    ] {
        let (status, stdout, stderr) = run(&[&["report"], args].concat());
        assert_eq!(
            (status, stdout.as_str()),
            (Some(2), ""),
            "{args:?}: {stderr}"
        );
        for piece in says {
            assert!(stderr.contains(piece), "{args:?}: no {piece:?} in {stderr}");
        }
        assert!(!Path::new(out).exists(), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let drops = file(INCIDENT);
    let mut child = tracer(&["report", "--cluster", "none", "--input", path(&drops)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn filters_are_those_of_watch_and_what_they_hold_back_is_said() {
    for (filter, findings) in [
        (&[][..], 2),
        (&["--class", "kubelet-probe"], 1),
        (&["--not", "--class", "kubelet-probe"], 1),
        (&["-n", "vault", "--direction", "egress"], 1),
        (&["--from-pod", "vault/vault-*"], 1),
    ] {
        let html = page(INCIDENT, &[filter, &["--cluster", "none"]].concat());
        assert_eq!(html.with_class("finding").len(), findings, "{filter:?}");
        let held_back = html.text().contains("held back by filters");
        assert_eq!(held_back, findings < 2, "{filter:?}");
    }
    let html = page(INCIDENT, &["--cluster", "none", "--node", "other"]);
    assert!(html.text().contains("Nothing was dropped."));
    assert!(html.text().contains("All 6 recorded lines were held back"));
}

#[test]
fn nothing_recorded_is_a_page_that_says_so() {
    for empty in ["", "\n\n"] {
        let html = page(empty, &["--cluster", CLUSTER, "--title", "Monday"]);
        assert_eq!(html.all("h1")[0].text(), "Monday");
        assert!(html.text().contains("Nothing was dropped."));
        assert!(html.with_class("finding").is_empty());
    }
}

#[test]
fn the_fix_is_what_suggest_prints() {
    let drops = file(INCIDENT);
    let html = page(INCIDENT, &["--cluster", CLUSTER]);
    let shown: Vec<String> = html
        .with_class("object")
        .iter()
        .flat_map(html_code)
        .collect();
    let (_, suggested, _) = run(&["suggest", "--cluster", CLUSTER, "--input", path(&drops)]);
    assert_eq!(shown.join("---\n"), suggested);
    assert_eq!(shown.len(), 2);
    let effects = html.with_class("effect");
    assert_eq!(effects.len(), 2);
    for effect in effects {
        let text = effect.text();
        assert!(
            text.contains("Let through by the fix below: proven for"),
            "{text}"
        );
    }
}

fn html_code(object: &crate::html::Element) -> Vec<String> {
    let code = object.descendants();
    let code = code.iter().filter(|element| element.name == "code");
    code.map(crate::html::Element::raw_text).collect()
}

#[test]
fn without_a_cluster_it_says_how_to_get_the_fix() {
    let html = page(INCIDENT, &["--cluster", "none"]);
    let text = html.text();
    assert!(
        text.contains("tracer suggest --input ") && text.contains(" --cluster cluster.yaml"),
        "{text}"
    );
    assert!(text.contains("kubectl get namespaces,"), "{text}");
    assert!(html.with_class("object").is_empty());
}

/// The incident as it is recorded where no cluster is known.
fn without_names() -> String {
    let lines = INCIDENT.lines().map(|line| {
        let mut drop: Value = serde_json::from_str(line).unwrap();
        let known = drop.as_object_mut().unwrap();
        for key in ["class", "direction", "policy", "probe", "symptom", "hint"] {
            known.remove(key);
        }
        for end in ["source", "destination"] {
            drop[end] =
                json!({"ip": drop[end]["ip"], "port": drop[end]["port"], "kind": "unknown"});
        }
        format!("{drop}\n")
    });
    lines.collect()
}

#[test]
fn what_was_recorded_without_a_cluster_is_explained_by_the_one_given() {
    let bare = without_names();
    let html = page(&bare, &["--cluster", "none"]);
    assert!(!html.text().contains("vault"), "{}", html.text());
    let html = page(&bare, &["--cluster", CLUSTER]);
    let text = html.text();
    for piece in [
        "kubelet-probe",
        "apiserver-egress",
        "isolated by vault/vault-policy",
    ] {
        assert!(text.contains(piece), "no {piece:?} in {text}");
    }
}

#[test]
fn what_was_recorded_with_a_verdict_keeps_it_though_the_policies_were_mended_since() {
    let cluster = std::fs::read_to_string(CLUSTER).unwrap();
    let drops = file(INCIDENT);
    let (_, cure, _) = run(&["suggest", "--cluster", CLUSTER, "--input", path(&drops)]);
    let mended = file(&format!("{cluster}---\n{cure}"));
    let html = page(INCIDENT, &["--cluster", path(&mended)]);
    let text = html.text();
    assert!(text.contains("isolated by vault/vault-policy"), "{text}");
    assert!(text.contains("No policy to add."), "{text}");
    assert!(text.contains("they were changed since"), "{text}");
    assert!(html.with_class("alarm-box").is_empty());
}

#[test]
fn help_lists_it() {
    let (status, stdout, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(
        stdout
            .lines()
            .any(|line| line.trim_start().starts_with("report ")),
        "{stdout}"
    );
}
