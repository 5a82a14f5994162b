//! What the page says, and that nothing in the input gets out of hand.

use serde_json::{Value, json};
use tracer::report::{About, Aggregate, Fix, Page, render};

use crate::command::page;
use crate::html::Html;
use crate::{CLUSTER, INCIDENT};

fn probe() -> Value {
    serde_json::from_str(INCIDENT.lines().next().unwrap()).unwrap()
}

/// The page of drops, through the library.
fn of(drops: impl IntoIterator<Item = Value>) -> (Html, String) {
    let mut all = Aggregate::default();
    for drop in drops {
        all.add(&serde_json::from_value(drop).unwrap(), None);
    }
    let about = About::default();
    let text = render(&Page::new(&about, &all, &Fix::Unasked)).unwrap();
    let html = Html::parse(&text);
    html.assert_sound();
    (html, text)
}

#[test]
fn the_incident_is_told_from_its_beginning_to_its_fix() {
    let html = page(
        INCIDENT,
        &["--cluster", CLUSTER, "--title", "Vault never came up"],
    );
    let words = html.lines();
    // Temporary files have names of their own.
    let source = words
        .split(" from ")
        .last()
        .unwrap()
        .split(". Times")
        .next()
        .unwrap();
    let words = words.replace(source, "drops.jsonl");
    let words = words.replace(
        &format!("tracer {}", env!("CARGO_PKG_VERSION")),
        "tracer VERSION",
    );
    insta::assert_snapshot!(words);
}

#[test]
fn stages_are_in_the_order_of_time_and_begin_with_the_policys_change() {
    let html = page(INCIDENT, &["--cluster", "none"]);
    let stages = html.with_class("stage");
    let text: Vec<_> = stages.iter().map(crate::html::Element::text).collect();
    assert_eq!(text.len(), 3);
    assert!(
        text[0].contains("vault/vault-policy was created by kubectl"),
        "{}",
        text[0]
    );
    assert!(
        text[1].contains("First drop of liveness probes"),
        "{}",
        text[1]
    );
    assert!(
        text[2].contains("First drop of API server calls"),
        "{}",
        text[2]
    );
    assert!(
        text[2].contains("net/http: TLS handshake timeout"),
        "{}",
        text[2]
    );
    let x = |index: usize| stages[index].attributes["data-x"].parse::<f64>().unwrap();
    assert!(x(0) < x(1) && x(1) < x(2));
    // The chart has a lane for each, and the change.
    assert_eq!(html.with_class("lane").len(), 2);
    let marks = html.with_class("change").into_iter();
    assert!(
        marks
            .filter(|mark| mark.name == "g")
            .any(|mark| mark.text().contains("vault/vault-policy created"))
    );
}

#[test]
fn a_disagreement_stands_above_everything_else() {
    let mut drop = probe();
    drop["policy"]["verdict"] = "allowed".into();
    let drops = INCIDENT
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let (html, _) = of(drops.chain([drop]));
    let alarms = html.with_class("alarm-box");
    assert_eq!(alarms.len(), 1);
    assert!(
        alarms[0]
            .text()
            .contains("1. kubelet → vault/vault:8200/TCP")
    );
    let first = &html.with_class("finding")[0];
    assert!(first.has_class("alarm"), "{}", first.text());
    assert!(
        html.with_class("story")[0]
            .text()
            .contains("although the policies allow it")
    );
}

#[test]
fn whose_rules_dropped_it_is_said() {
    let mut known = probe();
    known["drop"]["enforcer"] = "ufw".into();
    known["drop"]["evidence"] = json!(["chains ufw-*"]);
    let mut open = probe();
    open["drop"]["candidates"] = json!(["calico", "firewalld"]);
    let (html, _) = of([known, open]);
    let words = html.lines();
    assert!(words.contains("dropped by ufw (chains ufw-*)"), "{words}");
    assert!(
        words.contains("dropped by one of calico, firewalld"),
        "{words}"
    );
}

/// Markup, templates and commands where names should be.
const HOSTILE: [&str; 8] = [
    "</script><img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "\" onmouseover=\"alert(1)",
    "' autofocus onfocus='alert(1)",
    "<!--<script>",
    "]]></svg><iframe src=//evil.example>",
    "&lt;b&gt;&amp;&#0;{{ 7*7 }}{% raw %}",
    "\u{0}\u{1b}[31m\u{202e}gnp\u{ffff}\r\n# kubectl delete",
];

#[test]
fn nothing_in_the_input_becomes_markup() {
    let words = |value: &mut Value, text: &str| *value = text.into();
    let drops = HOSTILE.iter().map(|text| {
        let mut drop = probe();
        for pointer in [
            "/node",
            "/protocol",
            "/symptom",
            "/hint",
            "/source/node",
            "/destination/namespace",
            "/destination/pod",
            "/destination/workload",
            "/drop/reason",
            "/drop/hook",
            "/drop/programs/0/name",
            "/policy/isolating/0/name",
            "/policy/isolating/0/namespace",
            "/policy/isolating/0/kind",
            "/policy/nearest_miss/policy",
            "/policy/nearest_miss/rule",
            "/policy/nearest_miss/failed",
            "/policy/nearest_miss/wanted",
            "/policy/nearest_miss/got",
            "/policy/change/policy",
            "/policy/change/by",
            "/probe/kind",
            "/probe/container",
            "/probe/handler",
        ] {
            words(drop.pointer_mut(pointer).unwrap(), text);
        }
        drop["drop"]["reply"] = (*text).into();
        drop["notes"] = json!([text]);
        drop
    });
    // `assert_sound` looks for what must not be there: elements, handlers, references, a second script.
    let (html, text) = of(drops);
    assert_eq!(html.with_class("finding").len(), HOSTILE.len());
    let shown = html.text();
    for hostile in &HOSTILE[..7] {
        let folded = hostile.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(&folded), "no {folded:?} in the page's text");
    }
    for odd in ['\0', '\u{1b}', '\u{202e}', '\u{ffff}', '\r'] {
        assert!(!text.contains(odd), "{odd:?}");
    }
}

#[test]
fn the_title_and_the_names_of_files_are_escaped_too() {
    let folder = tempfile::tempdir().unwrap();
    let drops = folder
        .path()
        .join("<img src=x onerror=alert(1)> 'it's.jsonl");
    std::fs::write(&drops, INCIDENT).unwrap();
    let (status, stdout, stderr) = crate::command::run(&[
        "report",
        "--cluster",
        "none",
        "--input",
        drops.to_str().unwrap(),
        "--title",
        "</title><script>alert(1)</script>",
    ]);
    assert_eq!(status, Some(0), "{stderr}");
    let html = Html::parse(&stdout);
    html.assert_sound();
    assert_eq!(
        html.all("title")[0].text(),
        "</title><script>alert(1)</script>"
    );
    assert!(
        html.text()
            .contains(r"--input '<img src=x onerror=alert(1)> '\''it'\''s.jsonl'")
    );
}

#[test]
fn the_page_stays_small_however_much_there_is_and_says_what_it_leaves_out() {
    let long = "x".repeat(10_000);
    let drops = (0..5_000_u32).map(|number| {
        let mut drop = probe();
        let second = number % 60;
        let (minute, hour) = (number / 60 % 60, number / 3600);
        drop["time"] = format!("2026-11-23T{hour:02}:{minute:02}:{second:02}Z").into();
        drop["destination"]["pod"] = format!("{long}-{number}").into();
        drop["source"] = json!({"ip": format!("2001:db8::{number:x}"), "port": number % 60_000, "kind": "external"});
        drop["class"] = "external".into();
        drop["symptom"] = format!("{number} {long}").into();
        drop["policy"]["nearest_miss"]["got"] = format!("{number} {long}").into();
        drop["notes"] = json!([format!("{number} {long}")]);
        drop
    });
    let (html, text) = of(drops);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    let findings = html.with_class("finding").len();
    assert_eq!(findings, html.with_class("lane").len());
    let shown = html.text();
    assert!(
        shown.contains("5,000 packets of 5,000 flows"),
        "{}",
        &shown[..600]
    );
    let more = html.with_class("more").remove(0).text();
    assert!(
        more.starts_with("And ") && more.contains("more findings with"),
        "{more}"
    );
    assert!(findings < 100);
}

#[test]
fn times_of_any_age_make_a_page() {
    for times in [
        &["2026-11-23T10:01:02Z"][..],
        &["-009998-01-01T00:00:00Z", "9999-12-30T00:00:00Z"],
        &["1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z"],
    ] {
        let drops = times.iter().map(|time| {
            let mut drop = probe();
            drop["time"] = (*time).into();
            drop
        });
        let (html, text) = of(drops);
        assert_eq!(html.with_class("lane").len(), 1);
        assert!(!text.contains("NaN") && !text.contains("inf "), "{times:?}");
    }
}
