//! Whether a flow's port is one of a rule's.

use super::Pair;
use super::party::Who;
use crate::policy::{Port, PortNumber};
use crate::verdict::Failed;

/// Whether a flow's port is one of a rule's.
#[derive(Clone, Copy)]
pub(crate) enum PortMatch {
    Yes,
    /// What of the nearest port failed, and which it was.
    No(Failed, usize),
    /// The rule asks for a port and the flow names none.
    Undecided,
}

pub(crate) fn matches(ports: Option<&[Port]>, pair: &Pair<'_>) -> PortMatch {
    let Some(ports) = ports else {
        return PortMatch::Yes;
    };
    let mut nearest = (Failed::Protocol, 0);
    let mut undecided = false;
    for (index, wanted) in ports.iter().enumerate() {
        if wanted.protocol != pair.protocol {
            continue;
        }
        if nearest.0 == Failed::Protocol {
            nearest = (Failed::Port, index);
        }
        let is_met = match (&wanted.number, pair.port) {
            (PortNumber::Any, _) => true,
            (PortNumber::Range(first, last), Some(port)) => (*first..=*last).contains(&port),
            // A name means something on the destination pod only, in either direction.
            (PortNumber::Named(name), Some(port)) => match &pair.to.who {
                Who::Pod { entry, .. } => entry.pod.ports.iter().any(|p| {
                    p.port == port && p.protocol == pair.protocol && p.name.as_deref() == Some(name)
                }),
                Who::Node(_) | Who::External | Who::Untold => false,
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
        PortMatch::No(nearest.0, nearest.1)
    }
}
