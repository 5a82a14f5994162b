//! What `deploy/` says of the agent is so: the metrics that alerts and dashboard use exist, with those labels;
//! the rights it asks for are those it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tracer::cluster::Kind;
use tracer::record::{Drop, PolicyVerdict};
use tracer::sink::metrics::{Losses, Metrics};

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every metric the agent has, with its labels.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new(1).expect("metrics");
    let mut drop: Drop = serde_json::from_str(include_str!("data/probe.json")).expect("a drop");
    // More than one series, so that folding is counted too.
    metrics.observe(&drop);
    drop.class = None;
    drop.destination.as_mut().expect("an end").namespace = Some("other".into());
    drop.policy.as_mut().expect("a policy").verdict = PolicyVerdict::Allowed;
    metrics.observe(&drop);
    let text = metrics.render(Losses::default()).expect("a page");
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let labels = line.split_once('{').map_or("", |(_, rest)| {
            rest.rsplit_once('}').map_or("", |(labels, _)| labels)
        });
        let names = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        found.entry(name.to_owned()).or_default().extend(names);
    }
    found
}

/// The labels that Prometheus adds to what it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// Names in an expression, each with the labels it is selected by.
fn used(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("tracer_") {
        rest = &rest[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let mut labels = Vec::new();
        if let Some(selector) = after.strip_prefix('{') {
            let selector = selector.split('}').next().expect("a selector");
            for label in selector.split(',') {
                let name = label.split(['=', '!']).next().expect("a label");
                labels.push(name.trim().to_owned());
            }
        }
        found.push((name.to_owned(), labels));
        rest = after;
    }
    found
}

/// Labels that an expression groups by.
fn grouped(expression: &str) -> Vec<String> {
    expression
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .flat_map(|(labels, _)| labels.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

fn check(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) {
    let used = used(expression);
    for (name, labels) in &used {
        let own = metrics
            .get(name)
            .unwrap_or_else(|| panic!("{name} in `{expression}` is no metric of the agent"));
        for label in labels {
            assert!(
                own.contains(label),
                "{name} in `{expression}` has no {label}"
            );
        }
    }
    for label in grouped(expression) {
        let known = used.iter().any(|(name, _)| metrics[name].contains(&label));
        assert!(
            known || SCRAPED.contains(&label.as_str()),
            "nothing in `{expression}` has {label}"
        );
    }
}

#[test]
fn alerts_use_metrics_that_exist_and_have_a_page() {
    let metrics = metrics();
    let rules = read("deploy/prometheus/rules.yaml");
    let field = |name: &'static str| {
        rules
            .lines()
            .filter_map(move |line| line.trim().strip_prefix(name))
            .map(|text| text.trim().trim_matches('\''))
    };
    let expressions: Vec<_> = field("expr:").collect();
    assert_eq!(expressions.len(), 9);
    for expression in expressions {
        check(expression, &metrics);
    }
    let pages: Vec<_> = field("runbook_url:").collect();
    assert_eq!(pages.len(), 9);
    for (page, alert) in pages.iter().zip(field("- alert:")) {
        assert!(read(page).contains(&format!("`{alert}`")), "{page}");
    }
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    let metrics = metrics();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tracer.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(!panels.is_empty());
    for panel in panels {
        let expression = panel["targets"][0]["expr"].as_str().expect("an expression");
        assert!(expression.contains("tracer_"), "{expression}");
        check(expression, &metrics);
        let legend = panel["targets"][0]["legendFormat"]
            .as_str()
            .unwrap_or_default();
        for label in legend
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once("}}"))
        {
            assert!(
                grouped(expression).contains(&label.0.to_owned()),
                "{legend}"
            );
        }
    }
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
