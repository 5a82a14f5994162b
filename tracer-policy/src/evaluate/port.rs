//! Whether a flow's port is one of a rule's.

use super::Pair;
use super::party::Who;
use crate::policy::{PortNumber, Rule};
use crate::verdict::Failed;

/// Whether a flow's port is one of a rule's.
#[derive(Clone, Copy)]
pub(super) enum PortMatch {
    Yes,
    No(Failed),
    /// The rule asks for a port and the flow names none.
    Undecided,
}

pub(super) fn matches(rule: &Rule, pair: &Pair<'_>) -> PortMatch {
    let Some(ports) = &rule.ports else {
        return PortMatch::Yes;
    };
    let mut failed = Failed::Protocol;
    let mut undecided = false;
    for wanted in ports {
        if wanted.protocol != pair.protocol {
            continue;
        }
        failed = Failed::Port;
        let is_met = match (&wanted.number, pair.port) {
            (PortNumber::Any, _) => true,
            (PortNumber::Range(first, last), Some(port)) => (*first..=*last).contains(&port),
            // A name means something on the destination pod only, in either direction.
            (PortNumber::Named(name), Some(port)) => match &pair.to.who {
                Who::Pod { entry, .. } => entry.pod.ports.iter().any(|p| {
                    p.port == port && p.protocol == pair.protocol && p.name.as_deref() == Some(name)
                }),
                Who::Node(_) | Who::External => false,
            },
            (PortNumber::Range(..) | PortNumber::Named(_), None) => {
                undecided = true;
                false
            }
        };
        if is_met {
            return PortMatch::Yes;
        }
    }
    if undecided {
        PortMatch::Undecided
    } else {
        PortMatch::No(failed)
    }
}
