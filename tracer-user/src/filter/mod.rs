//! Which drops a person wants to see.
//!
//! As in Hubble: conditions of one kind widen (any of them may hold), conditions of different kinds
//! narrow (all of them must hold), and a negated condition excludes what it matches.

mod condition;

pub use condition::{Condition, Kind, ParseError, PodPattern, Side};

use crate::record::Drop;

/// A set of conditions.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    wanted: Vec<Condition>,
    unwanted: Vec<Condition>,
}

impl Filter {
    /// Adds a condition; a negated one excludes.
    pub fn push(&mut self, condition: Condition, negated: bool) {
        if negated {
            self.unwanted.push(condition);
        } else {
            self.wanted.push(condition);
        }
    }

    /// Whether a drop passes.
    pub fn passes(&self, drop: &Drop) -> bool {
        if self
            .unwanted
            .iter()
            .any(|condition| condition.matches(drop))
        {
            return false;
        }
        // Few conditions, so asking each for the verdict of its whole kind beats a map.
        self.wanted.iter().all(|condition| {
            self.wanted
                .iter()
                .any(|other| other.kind() == condition.kind() && other.matches(drop))
        })
    }
}

#[cfg(test)]
mod tests;
