//! What of the cluster could not be read: verdicts that may hang on it are unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Cluster;

/// What objects of a resource decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decides {
    /// What policies say: policies themselves, and what they select by.
    Policies,
    /// Whose an address is.
    Ends,
}

/// Resources and objects that could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(BTreeMap<String, Missing>);

/// What is missing with one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    /// All that such objects decide.
    All(Decides),
    /// What is said of pods of these namespaces.
    Namespaces(BTreeSet<String>),
    /// Whose these addresses are.
    Addresses(BTreeSet<IpAddr>),
}

impl Missing {
    const fn decides(&self) -> Decides {
        match self {
            Self::All(decides) => *decides,
            Self::Namespaces(_) => Decides::Policies,
            Self::Addresses(_) => Decides::Ends,
        }
    }
}

impl Cluster {
    /// Says that objects of `resource` (`networkpolicies`) could not be read, or not all of them, until
    /// [`Cluster::mark_read`]. Where they may decide, verdicts are unknown instead of allowed.
    pub fn mark_unread(&mut self, resource: &str, decides: Decides) {
        let missing = Missing::All(decides);
        self.unread.0.insert(resource.to_owned(), missing);
    }

    /// As [`Cluster::mark_unread`], of policies that have a say on pods of this namespace only.
    pub fn mark_unread_in(&mut self, resource: &str, namespace: &str) {
        let missing = self.unread.0.entry(resource.to_owned());
        match missing.or_insert_with(|| Missing::Namespaces(BTreeSet::new())) {
            Missing::All(_) => {}
            Missing::Namespaces(known) => {
                known.insert(namespace.to_owned());
            }
            other @ Missing::Addresses(_) => *other = Missing::All(Decides::Policies),
        }
    }

    /// As [`Cluster::mark_unread`], of one object (`Pod n/p`) that has no addresses but these.
    pub fn mark_unread_at(&mut self, object: &str, ips: impl IntoIterator<Item = IpAddr>) {
        let ips = ips.into_iter().map(|ip| ip.to_canonical()).collect();
        self.unread
            .0
            .insert(object.to_owned(), Missing::Addresses(ips));
    }

    /// Says that they could be read after all, or that there are none.
    pub fn mark_read(&mut self, resource: &str) {
        self.unread.0.remove(resource);
    }

    /// Whether this resource or object was said to be unread.
    pub fn is_unread(&self, resource: &str) -> bool {
        self.unread.0.contains_key(resource)
    }

    /// What could not be read of what decides this, by name.
    pub fn unread(&self, decides: Decides) -> impl Iterator<Item = &str> {
        self.unread
            .0
            .iter()
            .filter(move |(_, own)| own.decides() == decides)
            .map(|(resource, _)| resource.as_str())
    }

    /// The same in a sentence; `None` where all could be read.
    pub fn unread_reason(&self, decides: Decides) -> Option<String> {
        self.unread_sentence(decides, |_| true)
    }

    /// What could not be read of policies that may have a say on a pod of one of these namespaces, in a
    /// sentence.
    pub(crate) fn unread_for(&self, namespaces: [Option<&str>; 2]) -> Option<String> {
        let mut namespaces = namespaces.into_iter().flatten().peekable();
        namespaces.peek()?;
        self.unread_sentence(Decides::Policies, |missing| match missing {
            Missing::All(_) | Missing::Addresses(_) => true,
            Missing::Namespaces(known) => namespaces.clone().any(|name| known.contains(name)),
        })
    }

    /// What could not be read that this address may belong to, in a sentence.
    pub fn unread_at(&self, ip: IpAddr) -> Option<String> {
        let ip = ip.to_canonical();
        self.unread_sentence(Decides::Ends, |missing| match missing {
            Missing::All(_) | Missing::Namespaces(_) => true,
            Missing::Addresses(known) => known.contains(&ip),
        })
    }

    fn unread_sentence(
        &self,
        decides: Decides,
        matters: impl Fn(&Missing) -> bool,
    ) -> Option<String> {
        let own = |missing: &Missing| missing.decides() == decides && matters(missing);
        let names: Vec<_> = self
            .unread
            .0
            .iter()
            .filter(|(_, missing)| own(missing))
            .map(|(resource, _)| resource.as_str())
            .collect();
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
