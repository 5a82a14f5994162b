//! Which rules of this network namespace let packets fall, and whose they are.
//!
//! Only read, and only when something was dropped; what was read is taken for true for a while. Sets are not looked
//! into: whom a rule means is not the question here, but who made it.

mod graph;
mod legacy;
mod nft;
mod xt;

use std::io;
use std::time::{Duration, Instant};

use super::device::own_netns;
use crate::decode::{Hook, RawDrop};
use crate::enforcer::{Backend, Dropper};

/// How long what was read is taken for true. A node's thousands of rules take the kernel some milliseconds.
const FRESH: Duration = Duration::from_secs(5);
/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the rules, and remembers them for a while.
#[derive(Debug)]
pub struct Rulesets {
    /// The network namespace that we can look into: our own.
    netns: Option<u32>,
    read: Option<(Instant, Vec<Dropper>)>,
    told: bool,
}

impl Rulesets {
    /// For packets in the network namespace of this process.
    pub fn new() -> Self {
        Self {
            netns: own_netns(),
            read: None,
            told: false,
        }
    }

    /// The rules that there are where a packet was dropped by one; none where it was not, or they cannot be read.
    pub fn at(&mut self, drop: &RawDrop) -> &[Dropper] {
        let here = drop.hook == Some(Hook::Netfilter) && drop.netns == self.netns;
        if !here || self.netns.is_none() {
            return &[];
        }
        if self
            .read
            .as_ref()
            .is_none_or(|(at, _)| at.elapsed() >= FRESH)
        {
            let droppers = droppers().unwrap_or_else(|error| {
                if !self.told {
                    self.told = true;
                    tracing::info!("whose rules drop packets is not told: {}", unread(&error));
                }
                Vec::new()
            });
            self.read = Some((Instant::now(), droppers));
        }
        self.read.as_ref().map_or(&[], |(_, droppers)| droppers)
    }
}

impl Default for Rulesets {
    fn default() -> Self {
        Self::new()
    }
}

/// All rules of this network namespace by which packets fall.
///
/// # Errors
///
/// Where they may not be read: it takes `CAP_NET_ADMIN`.
pub fn droppers() -> io::Result<Vec<Dropper>> {
    let mut found = match nft::chains() {
        Ok(chains) => graph::droppers(Backend::Nft, &chains),
        // A kernel without `nf_tables` has none.
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    found.extend(graph::droppers(Backend::Legacy, &legacy::chains()?));
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT)
    )
}

/// Why rules cannot be read.
pub(super) fn unread(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "the rules may not be read without CAP_NET_ADMIN".to_owned()
    } else {
        format!("the rules cannot be read: {error}")
    }
}
