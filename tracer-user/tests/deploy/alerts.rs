//! The alerts, and the pages they lead to.

use serde_json::Value;

use crate::expression::{check, grouped};
use crate::page::metrics;
use crate::read;

/// The rules, as Prometheus reads them.
fn rules() -> Vec<Value> {
    let text = read("deploy/prometheus/rules.yaml");
    let file: Value = serde_saphyr::from_str(&text).expect("YAML");
    let rules = file["groups"][0]["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 9);
    rules.clone()
}

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    let value = rule.pointer(field);
    value
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{field}: {rule}"))
}

/// The text between backticks, over line ends.
fn commands(page: &str) -> String {
    let code: Vec<_> = page.split('`').skip(1).step_by(2).collect();
    code.join("\n")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn alerts_use_metrics_that_exist_and_have_a_page() {
    let metrics = metrics();
    for rule in rules() {
        check(text(&rule, "/expr"), &metrics);
        let page = read(text(&rule, "/annotations/runbook_url"));
        let name = text(&rule, "/alert");
        assert!(page.contains(&format!("`{name}`")), "{name}");
        assert!(page.contains("## What to do"), "{name}");
    }
}

#[test]
fn the_first_commands_say_on_which_node() {
    let where_ = "kubectl -n tracer get pods -o wide";
    for rule in rules() {
        let (name, said) = (
            text(&rule, "/alert"),
            text(&rule, "/annotations/description"),
        );
        let expression = text(&rule, "/expr");
        let keeps =
            !expression.contains(" by (") || grouped(expression).contains(&"instance".into());
        assert!(keeps && said.contains("$labels.instance"), "{name}");
        let (_, first) = said.split_once("First:\n").expect("what to do first");
        assert!(first.contains(where_), "{name}");
        let page = commands(&read(text(&rule, "/annotations/runbook_url")));
        assert!(page.contains(where_), "{name}");
        // What only the agent of that node has seen is asked of it.
        for asked in ["tracer watch", "tracer doctor"] {
            for said in [first, &page] {
                let by_pod = format!("exec POD -- /{asked}");
                let bare = said.matches(asked).count() - said.matches(&by_pod).count();
                let on_the_node = usize::from(name == "AgentDown" && asked == "tracer doctor");
                assert!(bare <= on_the_node, "{name}: {said}");
            }
        }
    }
}
