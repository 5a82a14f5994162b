//! The lab's enforcers upon what the API server says, and what they have dropped.

use anyhow::{Context, Result};
use lab::enforcer::Enforcer;
use lab::{Pods, Policies};
use serde_json::Value;

use crate::cluster::{Cluster, until};

/// One enforcer at a time, and the books of all of them.
#[derive(Default)]
pub(crate) struct Enforcement {
    enforcer: Option<Box<dyn Enforcer>>,
    /// Packets that earlier enforcers have dropped.
    before: u64,
}

impl Enforcement {
    /// Another enforcer in the place of the one before, in force from the next sync on.
    pub(crate) fn by(&mut self, cluster: &Cluster<'_>, enforcer: Box<dyn Enforcer>) -> Result<()> {
        if let Some(mut old) = self.enforcer.replace(enforcer) {
            old.remove(cluster.lab)?;
            self.before += old.dropped(cluster.lab)?;
        }
        Ok(())
    }

    /// Puts in force what the API server says now.
    pub(crate) fn sync(&mut self, cluster: &Cluster<'_>) -> Result<()> {
        let list = |kind: &str| -> Result<Value> {
            let list = cluster.plane.kubectl(&["get", kind, "-A", "-o", "json"])?;
            Ok(serde_json::from_str(&list)?)
        };
        let policies = Policies::from_api(&list("networkpolicies")?)?;
        let pods = Pods::from_api(&list("pods")?, &cluster.node.cables()?)?;
        let enforcer = self.enforcer.as_mut().context("there is no enforcer")?;
        enforcer.sync(cluster.lab.node(), &pods, &policies)
    }

    /// Packets that all enforcers dropped.
    pub(crate) fn dropped(&self, cluster: &Cluster<'_>) -> Result<u64> {
        let now = self.enforcer.as_ref().map(|now| now.dropped(cluster.lab));
        Ok(self.before + now.transpose()?.unwrap_or_default())
    }

    /// Waits until the agent has counted as many packets as were dropped, at a moment in which none is;
    /// returns how many those were.
    pub(crate) fn agrees(&self, cluster: &Cluster<'_>) -> Result<u64> {
        let mut seen = (0, 0);
        until("the agent counts what was dropped", || {
            let dropped = self.dropped(cluster)?;
            let counted = cluster.counted()?;
            seen = (dropped, counted);
            Ok(dropped == counted && dropped == self.dropped(cluster)?)
        })
        .with_context(|| {
            let (dropped, counted) = seen;
            format!(
                "{dropped} were dropped, {counted} counted, of these:\n{}",
                cluster.all_counted().unwrap_or_default()
            )
        })?;
        Ok(seen.0)
    }
}
