//! What upstream's tables do not cover: families, nodes, hostNetwork, finished pods, Services, replies, and
//! each reading a dataplane profile decides.
#![expect(clippy::unwrap_used, reason = "a broken fixture should fail the test")]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod index;
mod language;
mod profiles;
mod services;
mod unread;

use common::{apply, cluster};
use tracer_policy::model::{Labels, Namespace, Phase, Protocol};
use tracer_policy::{
    Cluster, End, Exemption, Failed, Flow, Outcome, Owner, Profile, ProfileName, SideVerdict,
    Verdict,
};

/// Two nodes, a pod on each, one on the first node's network; `a/web` declares named ports.
const BASE: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: {team: b}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.42.1.0/24}, status: {addresses: [{type: InternalIP, address: 10.10.0.11}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDR: 10.42.2.0/24}, status: {addresses: [{type: InternalIP, address: 10.10.0.12}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec:
  nodeName: n1
  initContainers: [{name: i, restartPolicy: Always, ports: [{name: side, containerPort: 9000}]}]
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {phase: Running, podIP: 10.42.1.5, podIPs: [{ip: 10.42.1.5}, {ip: "fd00::1:5"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: b, labels: {app: client}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {phase: Running, podIP: 10.42.2.7, podIPs: [{ip: 10.42.2.7}, {ip: "fd00::2:7"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: a, labels: {app: host}}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: c}]}
status: {phase: Running, podIP: 10.10.0.11, podIPs: [{ip: 10.10.0.11}]}
"#;

fn base(policies: &[(&str, &str)]) -> Cluster {
    let mut cluster = cluster(BASE);
    for (index, (namespace, spec)) in policies.iter().enumerate() {
        apply(
            &mut cluster,
            &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p{index}, namespace: {namespace}}}, spec: {{{spec}}}}}"
            ),
        );
    }
    cluster.set_profile(Some(Profile::SPEC));
    cluster
}

fn tcp(from: &str, to: &str, port: u16) -> Flow {
    Flow::tcp(from.parse().unwrap(), to.parse().unwrap(), port)
}

fn with(protocol: Protocol, port: Option<u16>, mut flow: Flow) -> Flow {
    flow.protocol = protocol;
    flow.port = port;
    flow
}

#[track_caller]
fn allowed(cluster: &Cluster, flow: &Flow) -> Verdict {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Allowed, "{flow}: {verdict:?}");
    verdict
}

#[track_caller]
fn denied(cluster: &Cluster, flow: &Flow) -> Verdict {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Denied, "{flow}: {verdict:?}");
    verdict
}

#[track_caller]
fn unknown(cluster: &Cluster, flow: &Flow, reason: &str) {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Unknown, "{flow}: {verdict:?}");
    let got = verdict.reason.unwrap();
    assert!(got.contains(reason), "{got}");
}

const SERVICE: &str = r"
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: a}, spec: {clusterIP: 10.43.0.5, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: a}
subsets:
- addresses: [{ip: 10.42.1.5}, {ip: 10.42.2.7}]
  ports: [{name: http, port: 8080}]
";
