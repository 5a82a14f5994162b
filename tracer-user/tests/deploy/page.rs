//! The page that Prometheus scrapes.

use std::collections::{BTreeMap, BTreeSet};

use tracer::record::{Drop, PolicyVerdict};
use tracer::sink::metrics::{Losses, Metrics, Sizes};

use crate::promtool::{self, Promtool};

/// A page with every metric the agent has.
fn full() -> String {
    let metrics = Metrics::new(1).expect("metrics");
    let mut drop: Drop = serde_json::from_str(include_str!("../data/probe.json")).expect("a drop");
    // More than one series, so that folding is counted too.
    metrics.observe(&drop);
    drop.class = None;
    drop.destination.as_mut().expect("an end").namespace = Some("other".into());
    drop.policy.as_mut().expect("a policy").verdict = PolicyVerdict::Allowed;
    metrics.observe(&drop);
    let sizes = Sizes {
        objects: vec![("pods", 1)],
        ..Sizes::default()
    };
    let losses = Losses::default();
    metrics.render(losses, &sizes).expect("a page")
}

/// Every metric the agent has, with its labels.
pub(crate) fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let text = full();
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

#[test]
fn each_metric_is_explained() {
    let explained = crate::read("docs/metrics.md");
    for (name, labels) in metrics() {
        let line = explained
            .lines()
            .find(|line| line.contains(&format!("`{name}`")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        for label in labels {
            assert!(line.contains(&format!("`{label}`")), "{name}: {label}");
        }
    }
}

/// Its name was promised before its unit was looked at.
const PROMISED: &str = "tracer_kernel_ns_total";

#[test]
fn it_is_as_prometheus_wants_it() {
    let Some(promtool) = Promtool::find() else {
        return;
    };
    let output = promtool.run(&["check", "metrics"], &full());
    let said = promtool::said(&output);
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("tracer_"))
        .filter(|line| line.split(' ').next() != Some(PROMISED))
        .collect();
    assert!(complaints.is_empty(), "{said}");
    // 3 is for names and the like; anything else could not be read at all.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}
