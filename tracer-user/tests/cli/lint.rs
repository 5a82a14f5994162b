//! `tracer lint` by dataplane and namespace, and what it hands to code hosts.

use super::{INCIDENT, file, path, run};

#[test]
fn lint_tells_the_incidents_mistakes_under_every_dataplane() {
    for dataplane in ["k3s", "calico", "cilium", "spec"] {
        let (status, stdout, stderr) = run(&["lint", INCIDENT, "--dataplane", dataplane]);
        assert_eq!(status, Some(1), "{stderr}");
        let probe = if dataplane == "spec" {
            "error[probe-blocked]"
        } else {
            "info[probe-exempt]"
        };
        for rule in [probe, "warning[apiserver-blocked]", "error[dns-blocked]"] {
            let at = format!("incident.yaml:86: {rule} vault/vault-policy");
            assert!(stdout.contains(&at), "{dataplane}: no {at:?} in {stdout}");
        }
    }
}

#[test]
fn lint_gives_objects_the_namespace_that_they_do_not_name() {
    let policies = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: own}\n\
                    spec: {podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {}}]}]}\n---\n\
                    apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: other, namespace: shop}\n\
                    spec: {podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {}}]}]}\n";
    let policies = file(policies);
    let (status, stdout, stderr) = run(&["lint", "-n", "vault", path(&policies)]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stdout.contains("[policy-types-omitted] vault/own") && !stdout.contains("/other"),
        "{stdout}"
    );
    let (_, stdout, _) = run(&["lint", path(&policies)]);
    assert!(
        stdout.contains("[policy-types-omitted] default/own") && stdout.contains("shop/other"),
        "{stdout}"
    );
    // As applied to that namespace of a cluster.
    let ingress = file(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: new}\nspec: {podSelector: {}}\n",
    );
    let args = ["lint", "-n", "vault", path(&ingress), "--cluster", INCIDENT];
    let (status, stdout, stderr) = run(&args);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stdout.contains("[probe-blocked] vault/new"), "{stdout}");
}

/// The members of an object, which are these and no others; what is marked `?` may be absent.
fn members<'a>(
    value: &'a serde_json::Value,
    known: &[&str],
) -> &'a serde_json::Map<String, serde_json::Value> {
    let object = value.as_object().unwrap();
    for name in object.keys() {
        let is = |known: &&str| known.trim_end_matches('?') == name;
        assert!(known.iter().any(is), "{name} in {value}");
    }
    for name in known.iter().filter(|name| !name.ends_with('?')) {
        assert!(object.contains_key(*name), "no {name} in {value}");
    }
    object
}

#[test]
fn sarif_is_what_its_specification_says() {
    let text = |value: &serde_json::Value| {
        let text = members(value, &["text"])["text"].as_str().unwrap();
        assert!(!text.trim().is_empty() && !text.ends_with(": "), "{text:?}");
    };
    let level = |value: &serde_json::Value| {
        assert!(["none", "note", "warning", "error"].contains(&value.as_str().unwrap()));
    };
    let folder = tempfile::tempdir().unwrap();
    let spaced = folder.path().join("two words#1.yaml");
    std::fs::copy(INCIDENT, &spaced).unwrap();
    for from in [INCIDENT, spaced.to_str().unwrap()] {
        let log = run(&["lint", from, "-o", "sarif"]).1;
        let log: serde_json::Value = serde_json::from_str(&log).unwrap();
        let top = members(&log, &["$schema", "version", "runs"]);
        assert_eq!(top["version"], "2.1.0");
        assert!(
            top["$schema"]
                .as_str()
                .unwrap()
                .ends_with("sarif-2.1.0.json")
        );
        assert_eq!(top["runs"].as_array().unwrap().len(), 1);
        let the_run = members(&top["runs"][0], &["tool", "results"]);
        let tool = members(&the_run["tool"], &["driver"]);
        let driver = members(&tool["driver"], &["name", "version", "rules"]);
        assert!(driver["name"].is_string() && driver["version"].is_string());
        let rules = driver["rules"].as_array().unwrap();
        let mut ids = std::collections::HashSet::new();
        for rule in rules {
            let descriptions = ["shortDescription", "fullDescription", "help"];
            let rule = members(
                rule,
                &[&descriptions[..], &["id", "defaultConfiguration"]].concat(),
            );
            for name in descriptions {
                text(&rule[name]);
            }
            level(&members(&rule["defaultConfiguration"], &["level"])["level"]);
            assert!(ids.insert(rule["id"].as_str().unwrap()));
        }
        let results = the_run["results"].as_array().unwrap();
        assert!(results.len() > 2, "{results:?}");
        for result in results {
            let result = members(
                result,
                &["ruleId", "ruleIndex", "level", "message", "locations?"],
            );
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            level(&result["level"]);
            text(&result["message"]);
            let locations = result["locations"].as_array().unwrap();
            for location in locations {
                let physical = &members(location, &["physicalLocation"])["physicalLocation"];
                let physical = members(physical, &["artifactLocation", "region"]);
                let uri = &members(&physical["artifactLocation"], &["uri"])["uri"];
                assert!(!uri.as_str().unwrap().contains([' ', '#']), "{uri}");
                let region = members(&physical["region"], &["startLine"]);
                assert!(region["startLine"].as_u64().unwrap() >= 1);
            }
        }
    }
    let rules = run(&["lint", "--rules"]).1;
    assert!(!rules.lines().any(|line| line.trim() == "seen"), "{rules}");
}
