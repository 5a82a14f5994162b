//! The traffic of the story: who asks whom, and what must come of it.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::traffic::{HttpsOutcome, Request};
use lab::{Family, Lab, Netns, plan};

use crate::tell;

/// How long a client of the API server waits for each stage; client-go's own patience is 30 s.
const API_PATIENCE: Duration = Duration::from_secs(2);
/// `timeoutSeconds` of a probe, the default.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// What must come of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Works,
    Fails,
}

/// The kubelet's readiness probe of vault-0.
pub(crate) fn probe_request(lab: &Lab) -> Request {
    Request::probe(
        lab.vault("vault-0", Family::V4),
        "/v1/sys/health",
        PROBE_PATIENCE,
    )
}

/// A call of Vault's service registration.
pub(crate) fn api_request() -> Request {
    Request::api_call(
        plan::kubernetes_service(Family::V4),
        "/version",
        API_PATIENCE,
    )
}

/// The probe, from the pod's own node.
pub(crate) fn probe(lab: &Lab, expect: Expect) -> Result<()> {
    ask(
        lab,
        "kubelet on node-1 → vault-0, readiness probe",
        lab.node(),
        &probe_request(lab),
        expect,
    )
}

/// The same request from the other node, as an ingress controller there would make it.
pub(crate) fn from_other_node(lab: &Lab, expect: Expect) -> Result<()> {
    ask(
        lab,
        "process on node-2 → vault-0:8200",
        lab.other_node(),
        &probe_request(lab),
        expect,
    )
}

/// Vault to the API server, by the Service's address.
pub(crate) fn api(lab: &Lab, expect: Expect) -> Result<()> {
    let from = lab.pod("vault-0").netns();
    ask(
        lab,
        "vault-0 → API server (10.43.0.1:443)",
        from,
        &api_request(),
        expect,
    )
}

/// Vault to its peer: what the policy was written for.
pub(crate) fn peer(lab: &Lab, expect: Expect) -> Result<()> {
    let request = Request::api_call(
        lab.vault("vault-1", Family::V4),
        "/v1/sys/health",
        API_PATIENCE,
    );
    ask(
        lab,
        "vault-0 → vault-1, Raft peer",
        lab.pod("vault-0").netns(),
        &request,
        expect,
    )
}

fn ask(lab: &Lab, what: &str, from: &Netns, request: &Request, expect: Expect) -> Result<()> {
    outcome(what, &lab.https().get(from, request)?, expect)
}

/// Tells what came of a request, and insists that it is what the story says.
pub(crate) fn outcome(what: &str, got: &HttpsOutcome, expect: Expect) -> Result<()> {
    let text = match got {
        HttpsOutcome::Answered { status, .. } => format!("HTTP {status}"),
        HttpsOutcome::Failed { text, .. } => text.clone(),
    };
    if got.is_success() {
        tell::works(what, &text);
    } else {
        tell::fails(what, &text);
    }
    match (got.is_success(), expect) {
        (true, Expect::Fails) => bail!("{what}: expected it to fail, and it worked"),
        (false, Expect::Works) => bail!("{what}: expected it to work, and got: {text}"),
        _ => Ok(()),
    }
}
