//! What of the cluster could not be read: verdicts that may hang on it are unknown.

use std::collections::BTreeMap;

use super::Cluster;

/// What objects of a resource decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decides {
    /// What policies say: policies themselves, and what they select by.
    Policies,
    /// Whose an address is.
    Ends,
}

/// Resources that could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(BTreeMap<String, Decides>);

impl Cluster {
    /// Says that objects of `resource` (`networkpolicies`) could not be read, or not all of them, until
    /// [`Cluster::mark_read`]. Where they may decide, verdicts are unknown instead of allowed.
    pub fn mark_unread(&mut self, resource: &str, decides: Decides) {
        self.unread.0.insert(resource.to_owned(), decides);
    }

    /// Says that they could be read after all, or that there are none.
    pub fn mark_read(&mut self, resource: &str) {
        self.unread.0.remove(resource);
    }

    /// What could not be read of what decides this, by name.
    pub fn unread(&self, decides: Decides) -> impl Iterator<Item = &str> {
        self.unread
            .0
            .iter()
            .filter(move |(_, own)| **own == decides)
            .map(|(resource, _)| resource.as_str())
    }

    /// The same in a sentence; `None` where all could be read.
    pub fn unread_reason(&self, decides: Decides) -> Option<String> {
        let names: Vec<_> = self.unread(decides).collect();
        let missing = match decides {
            Decides::Policies => "what they decide",
            Decides::Ends => "whose this address is",
        };
        (!names.is_empty()).then(|| {
            format!(
                "{} could not be read: {missing} is not known",
                names.join(", ")
            )
        })
    }
}
