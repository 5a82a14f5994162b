//! Who dies and comes back, while drops go on.

use anyhow::{Result, ensure};

use crate::agent::PROBES;
use crate::cluster::{Cluster, until};
use crate::enforcement::Enforcement;

/// Without an API server the agent goes on from what it knows, says so, and catches up without a restart.
pub(crate) fn of_the_api_server(
    cluster: &mut Cluster<'_>,
    enforcement: &Enforcement,
) -> Result<()> {
    cluster.plane.stop_api_server();
    cluster.wait_synced(false)?;
    let known = cluster.counted_invisible(PROBES)?;
    until("probes are counted without an API server", || {
        Ok(cluster.counted_invisible(PROBES)? > known)
    })?;
    cluster.plane.start_api_server()?;
    cluster.wait_synced(true)?;
    let restarts = cluster.agent_restarts()?;
    ensure!(restarts == 0, "the agent was restarted {restarts} times");
    enforcement.agrees(cluster).map(drop)
}

/// The agent is killed; the kubelet starts it again, and the new one counts on from the old one's counts,
/// with what was dropped while there was none.
pub(crate) fn of_the_agent(cluster: &Cluster<'_>, enforcement: &Enforcement) -> Result<()> {
    let before = enforcement.agrees(cluster)?;
    let probes = cluster.counted_invisible(PROBES)?;
    let restarts = cluster.agent_restarts()?;
    let id = "jsonpath={.status.containerStatuses[0].containerID}";
    let container = cluster.get("tracer", &cluster.agent()?, id)?;
    cluster.node.kill_container(&container)?;
    until("the kubelet restarts the agent", || {
        Ok(cluster.agent_restarts()? > restarts)
    })?;
    cluster.wait_agent()?;
    until("the new agent counts probes", || {
        Ok(cluster.counted_invisible(PROBES)? > probes)
    })?;
    let after = enforcement.agrees(cluster)?;
    ensure!(after > before, "nothing was dropped meanwhile");
    Ok(())
}
