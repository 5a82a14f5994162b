//! The dashboard: what Grafana would find wrong with it, as far as that can be told without one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::expression::{check, grouped};
use crate::page::metrics;
use crate::promtool::{self, Promtool};
use crate::read;

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/tracer.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(!panels.is_empty());
    panels
}

fn targets(panel: &Value) -> impl Iterator<Item = (&Value, &str)> {
    let targets = panel["targets"].as_array().expect("targets");
    assert!(!targets.is_empty(), "{panel}");
    targets
        .iter()
        .map(|target| (target, target["expr"].as_str().expect("an expression")))
}

/// Units of Grafana's that mean what the panels show.
/// <https://github.com/grafana/grafana/blob/v11.0.0/packages/grafana-data/src/valueFormats/categories.ts>
const UNITS: [&str; 5] = ["pps", "none", "short", "ns", "percentunit"];

#[test]
fn it_uses_metrics_that_exist() {
    let (dashboard, metrics) = (dashboard(), metrics());
    for panel in panels(&dashboard) {
        for (target, expression) in targets(panel) {
            assert!(expression.contains("tracer_"), "{expression}");
            check(expression, &metrics);
            let legend = target["legendFormat"].as_str().expect("a legend");
            let named = legend
                .split("{{")
                .skip(1)
                .filter_map(|rest| rest.split_once("}}"));
            let named: Vec<_> = named.map(|(label, _)| label.to_owned()).collect();
            let grouped = grouped(expression);
            assert!(
                named.iter().all(|label| grouped.contains(label)),
                "{legend}"
            );
            // Else several lines have one name.
            let is_line = panel["type"] == "timeseries";
            assert!(
                !is_line || !named.is_empty() || grouped.is_empty(),
                "{expression}"
            );
        }
    }
}

#[test]
fn each_panel_is_whole() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    let is_source = |one: &&Value| one["type"] == "datasource" && one["query"] == "prometheus";
    let source = variables
        .iter()
        .find(is_source)
        .expect("a data source to choose");
    let uid = format!("${{{}}}", source["name"].as_str().expect("a name"));
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        assert!(panel["description"].is_string(), "{title}");
        let kind = panel["type"].as_str().expect("a type");
        assert!(
            ["stat", "timeseries", "table"].contains(&kind),
            "{title}: {kind}"
        );
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(
            unit.is_some_and(|unit| UNITS.contains(&unit)),
            "{title}: {unit:?}"
        );
        assert_eq!(panel["datasource"]["uid"], uid, "{title}");
        let mut letters = BTreeSet::new();
        for (target, _) in targets(panel) {
            assert_eq!(target["datasource"]["uid"], uid, "{title}");
            assert!(
                letters.insert(target["refId"].as_str().expect("a letter")),
                "{title}"
            );
            if kind == "table" {
                assert_eq!(target["format"], "table", "{title}");
                assert_eq!(target["instant"], true, "{title}");
            }
        }
        let at = |field: &str| panel["gridPos"][field].as_u64().expect("a place");
        assert!(
            at("x") + at("w") <= 24,
            "{title}: Grafana's grid has 24 columns"
        );
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
}

#[test]
fn prometheus_can_read_each_expression() {
    let Some(promtool) = Promtool::find() else {
        return;
    };
    let dashboard = dashboard();
    let rules =
        panels(&dashboard)
            .iter()
            .flat_map(targets)
            .enumerate()
            .map(|(number, (_, expression))| {
                // Grafana's own, which it replaces before it asks.
                let expression = expression
                    .replace("$__rate_interval", "5m")
                    .replace("$__range", "1h");
                assert!(!expression.contains('$'), "{expression}");
                serde_json::json!({"record": format!("panel:{number}"), "expr": expression})
            });
    let rules: Vec<_> = rules.collect();
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules.yaml");
    std::fs::write(&path, file.to_string()).expect("a file");
    let output = promtool.run(&["check", "rules", path.to_str().expect("a path")], "");
    assert!(output.status.success(), "{}", promtool::said(&output));
}
