//! What drops packets: policy enforcers, and single rules for tests of one hook.

mod kube_router;
mod rules;
mod tc;

use anyhow::Result;

use crate::lab::Lab;
use crate::netns::Netns;
use crate::policy::{Pods, Policies};

pub use kube_router::KubeRouter;
pub use rules::{Backend, Hook, InstalledRule, Rule, Verdict};
pub use tc::{Attach, Tc};

/// Enforces network policies on the node under test, as a CNI's agent does.
pub trait Enforcer {
    /// A short name for messages and tables.
    fn name(&self) -> &'static str;

    /// Puts `policies` in force for `pods` in place of what was in force before. Packets under way at that
    /// very moment may pass or not; [`Enforcer::dropped`] counts each that did not.
    fn sync(&mut self, node: &Netns, pods: &Pods, policies: &Policies) -> Result<()>;

    /// The same for the lab's own pods.
    fn install(&mut self, lab: &Lab, policies: &Policies) -> Result<()> {
        self.sync(lab.node(), &Pods::of(lab), policies)
    }

    /// Packets dropped or rejected since the first [`Enforcer::sync`], by the enforcer's own counter:
    /// exact once traffic has stopped.
    fn dropped(&self, lab: &Lab) -> Result<u64>;

    /// Lets everything through again and leaves nothing behind.
    fn remove(&mut self, lab: &Lab) -> Result<()>;
}
