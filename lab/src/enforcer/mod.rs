//! What drops packets: policy enforcers, and single rules for tests of one hook.

mod kube_router;
mod rules;
mod tc;

use anyhow::Result;

use crate::lab::Lab;
use crate::policy::Policies;

pub use kube_router::KubeRouter;
pub use rules::{Backend, Hook, InstalledRule, Rule, Verdict};
pub use tc::{Attach, Tc};

/// Enforces network policies on the node under test, as a CNI's agent does.
pub trait Enforcer {
    /// A short name for messages and tables.
    fn name(&self) -> &'static str;

    /// Puts `policies` in force in place of what was installed before. Packets under way at that very
    /// moment may pass or not; [`Enforcer::dropped`] keeps counting from where it was.
    fn install(&mut self, lab: &Lab, policies: &Policies) -> Result<()>;

    /// Packets dropped or rejected since the first [`Enforcer::install`], by the enforcer's own
    /// counter: exact once traffic has stopped.
    fn dropped(&self, lab: &Lab) -> Result<u64>;

    /// Lets everything through again and leaves nothing behind.
    fn remove(&mut self, lab: &Lab) -> Result<()>;
}
