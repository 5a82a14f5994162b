//! Who dies and comes back, while drops go on.

use anyhow::{Result, ensure};

use crate::agent::PROBES;
use crate::cluster::{Cluster, NODE, until};
use crate::enforcement::Enforcement;

/// Without an API server the agent goes on from what it knows, says so, and catches up without a restart; and
/// so does one that starts meanwhile, from the snapshot of the one before.
pub(crate) fn of_the_api_server(
    cluster: &mut Cluster<'_>,
    enforcement: &Enforcement,
) -> Result<()> {
    let agent = agent_container(cluster)?;
    cluster.plane.stop_api_server();
    cluster.wait_synced(false)?;
    let known = cluster.counted_invisible(PROBES)?;
    until("probes are counted without an API server", || {
        Ok(cluster.counted_invisible(PROBES)? > known)
    })?;
    let known = cluster.counted_invisible(PROBES)?;
    cluster.node.kill_container(&agent)?;
    until("a new agent says what it works from", || {
        let said = cluster.ask_agent("/readyz").unwrap_or_default();
        Ok(said.contains("the API server does not answer")
            && said.contains("working from the snapshot of"))
    })?;
    let followed = cluster.metric("tracer_cluster_state_timestamp_seconds", &[])?;
    ensure!(followed > 0, "the state is of no time");
    until("the new agent knows probes by name", || {
        Ok(cluster.counted_invisible(PROBES)? > known)
    })?;
    cluster.plane.start_api_server()?;
    cluster.wait_synced(true)?;
    let said = cluster.ask_agent("/readyz")?;
    ensure!(said == "ok\n", "/readyz: {said}");
    until("the kubelet has told of a restart", || {
        Ok(cluster.agent_restarts()? >= 1)
    })?;
    enforcement.agrees(cluster).map(drop)
}

/// Kills the agent; returns once the one that the kubelet starts then has read the cluster.
pub(crate) fn restart_agent(cluster: &Cluster<'_>) -> Result<()> {
    let restarts = cluster.agent_restarts()?;
    cluster.node.kill_container(&agent_container(cluster)?)?;
    until("the kubelet restarts the agent", || {
        Ok(cluster.agent_restarts()? > restarts)
    })?;
    cluster.wait_agent()
}

/// Deletes the agent's pod; returns the name of the one in its place, which runs.
pub(crate) fn replace_agent(cluster: &Cluster<'_>) -> Result<String> {
    let old = cluster.agent()?;
    cluster
        .plane
        .kubectl(&["-n", "tracer", "delete", "pod", &old])?;
    let mut new = String::new();
    until("the DaemonSet has another pod", || {
        cluster.plane.schedule(NODE)?;
        new = cluster.agent()?;
        let running = "jsonpath={.status.containerStatuses[0].state.running.startedAt}";
        Ok(new != old && !cluster.get("tracer", &new, running)?.is_empty())
    })?;
    Ok(new)
}

fn agent_container(cluster: &Cluster<'_>) -> Result<String> {
    let id = "jsonpath={.status.containerStatuses[0].containerID}";
    cluster.get("tracer", &cluster.agent()?, id)
}

/// The agent is killed; the kubelet starts it again, and the new one counts on from the old one's counts,
/// with what was dropped while there was none.
pub(crate) fn of_the_agent(cluster: &Cluster<'_>, enforcement: &Enforcement) -> Result<()> {
    let before = enforcement.agrees(cluster)?;
    let probes = cluster.counted_invisible(PROBES)?;
    restart_agent(cluster)?;
    until("the new agent counts probes", || {
        Ok(cluster.counted_invisible(PROBES)? > probes)
    })?;
    let after = enforcement.agrees(cluster)?;
    ensure!(after > before, "nothing was dropped meanwhile");
    Ok(())
}
