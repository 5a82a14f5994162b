//! What an expression of Prometheus asks for.

use std::collections::{BTreeMap, BTreeSet};

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
pub(crate) fn grouped(expression: &str) -> Vec<String> {
    expression
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .flat_map(|(labels, _)| labels.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// Sees that the metrics exist, with the labels that are asked for.
pub(crate) fn check(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) {
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
