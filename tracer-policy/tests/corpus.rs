//! The verdicts of upstream's own test tables, by profile `spec`.
#![expect(clippy::unwrap_used, reason = "a broken fixture should fail the test")]

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use tracer_policy::model::{Namespace, Pod, Protocol};
use tracer_policy::{Cluster, End, Flow, Profile};

#[derive(Deserialize)]
struct Case {
    id: String,
    objects: Objects,
    probes: Vec<Probe>,
}

#[derive(Deserialize)]
struct Objects {
    namespaces: Vec<core::Namespace>,
    pods: Vec<core::Pod>,
    policies: Vec<NetworkPolicy>,
}

#[derive(Deserialize)]
struct Probe {
    src: Where,
    dst: Where,
    port: Option<u16>,
    protocol: String,
    expect: String,
    tags: Vec<String>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Where {
    Pod(String),
    Ip(String),
}

impl Where {
    fn end(&self) -> End {
        match self {
            Self::Pod(text) | Self::Ip(text) => text.parse().unwrap(),
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
}

fn cluster(objects: &Objects) -> Cluster {
    let mut cluster = Cluster::new();
    // Policies first: what is applied later must be found by what came before.
    for policy in &objects.policies {
        cluster.apply_network_policy(policy).unwrap();
    }
    for pod in &objects.pods {
        cluster.apply_pod(Pod::try_from(pod).unwrap());
    }
    for namespace in &objects.namespaces {
        cluster.apply_namespace(Namespace::try_from(namespace).unwrap());
    }
    cluster.set_profile(Some(Profile::SPEC));
    cluster
}

/// Runs every case below `dir`; the number of probes judged, and what came out otherwise than expected.
fn run(dir: &Path) -> (usize, Vec<String>) {
    let mut paths = Vec::new();
    files(dir, &mut paths);
    assert!(!paths.is_empty(), "no case in {}", dir.display());
    let (mut judged, mut wrong) = (0, Vec::new());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let case: Case =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let cluster = cluster(&case.objects);
        for probe in &case.probes {
            if probe
                .tags
                .iter()
                .any(|tag| tag != "derived-from-policyTypes")
            {
                continue;
            }
            judged += 1;
            let flow = Flow {
                from: probe.src.end(),
                to: probe.dst.end(),
                port: probe.port,
                protocol: Protocol::from_name(&probe.protocol).unwrap(),
                icmp: None,
            };
            let verdict = cluster.evaluate(&flow);
            let as_expected = match probe.expect.as_str() {
                "allow" => verdict.is_allowed(),
                "deny" => verdict.is_denied(),
                other => panic!("{}: expect `{other}`", case.id),
            };
            if !as_expected {
                let verdict = serde_json::to_string(&verdict).unwrap();
                wrong.push(format!(
                    "{}: {flow}: {} expected, {verdict}",
                    case.id, probe.expect
                ));
            }
        }
    }
    (judged, wrong)
}

#[test]
fn upstream_verdicts() {
    let (judged, wrong) = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged > 600, "only {judged} probes were judged");
}

#[test]
#[ignore = "judges a corpus of one's own: TRACER_CORPUS=DIR"]
fn another_corpus() {
    let dir = std::env::var_os("TRACER_CORPUS").expect("TRACER_CORPUS names a folder");
    let (judged, wrong) = run(Path::new(&dir));
    println!("{judged} probes");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
