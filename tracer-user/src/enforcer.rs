//! Whose rules dropped a packet: what stands at the hook where it died, less what cannot have been it.
//!
//! Chains, programs and marks are evidence; none is taken for the answer by itself. Where more than one owner is
//! left, all are named and none is chosen.

mod owner;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use owner::{Owner, Sign};

use crate::decode::{Action, Hook, Point, RawDrop};
use crate::record::{DropInfo, ProgramInfo};

/// What holds rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// `nf_tables`, that of `iptables-nft` included.
    Nft,
    /// `x_tables`: `iptables-legacy`.
    Legacy,
}

/// Which packets a chain is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Frames that a bridge handles.
    Bridge,
    /// Frames at a device.
    Netdev,
}

/// How a rule lets packets fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule that there is, and any may be"
)]
pub struct Falls {
    /// Without a word.
    pub silent: bool,
    /// The sender is told by ICMP.
    pub icmp: bool,
    /// The sender is told by a TCP reset.
    pub reset: bool,
    /// Without a word, what connection tracking calls invalid and nothing else.
    pub invalid: bool,
}

impl Falls {
    /// Whether packets fall at all.
    pub const fn any(self) -> bool {
        self.silent || self.icmp || self.reset || self.invalid
    }

    /// Either's.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            silent: self.silent || other.silent,
            icmp: self.icmp || other.icmp,
            reset: self.reset || other.reset,
            invalid: self.invalid || other.invalid,
        }
    }
}

/// Somebody's rules at a hook, by which packets fall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropper {
    /// Of which packets.
    pub family: Family,
    /// The hook.
    pub point: Point,
    /// Where the rules are.
    pub backend: Backend,
    /// Whose they are.
    pub owner: Owner,
    /// By what they are known.
    pub sign: Sign,
    /// How packets fall there.
    pub falls: Falls,
}

/// Whose rules it may have been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// All it may have been; one where it is known.
    pub owners: Vec<Owner>,
    /// What says so, in words; nothing where it is not known.
    pub evidence: Vec<String>,
}

impl Enforced {
    /// Adds it to the record.
    pub fn tell(self, drop: &mut DropInfo) {
        let names = self.owners.iter().map(|owner| owner.as_str().to_owned());
        let mut names: Vec<_> = names.collect();
        match names.len() {
            // A recording knows better than its reader's machine.
            0 => {}
            1 => {
                drop.enforcer = names.pop();
                drop.evidence = self.evidence;
            }
            _ => drop.candidates = names,
        }
    }
}

/// Judges a drop. `programs`: those at its tc hook; `droppers`: all rules of its network namespace.
pub fn judge(raw: &RawDrop, programs: &[ProgramInfo], droppers: &[Dropper]) -> Enforced {
    match raw.hook {
        Some(Hook::TcIngress | Hook::TcEgress) => of_programs(programs),
        Some(Hook::Netfilter) => of_rules(raw, droppers),
        _ => Enforced::default(),
    }
}

fn of_programs(programs: &[ProgramInfo]) -> Enforced {
    let names = programs
        .iter()
        .filter_map(|program| program.name.as_deref());
    let mut owned = BTreeMap::<Owner, Vec<String>>::new();
    for name in names {
        if let Some(owner) = Owner::of_program(name) {
            owned
                .entry(owner)
                .or_default()
                .push(format!("program {name}"));
        }
    }
    among(owned)
}

fn of_rules(raw: &RawDrop, droppers: &[Dropper]) -> Enforced {
    // `nft_do_chain` frees what its own rules drop, on kernels that give reasons there; the others' is freed by
    // who asked.
    let symbol = raw.location.symbol.as_deref().unwrap_or_default();
    let backend = symbol.starts_with("nft_do_chain").then_some(Backend::Nft);
    let mut owned = BTreeMap::<Owner, Vec<String>>::new();
    for dropper in droppers {
        if backend.is_none_or(|backend| backend == dropper.backend) && can_be(raw, dropper) {
            let evidence = owned.entry(dropper.owner).or_default();
            let sign = dropper.sign.to_string();
            if !evidence.contains(&sign) {
                evidence.push(sign);
            }
        }
    }
    let mut enforced = among(owned);
    if let [owner] = enforced.owners[..] {
        let reply = match raw.action {
            Some(Action::RejectIcmp(_)) => Some("it rejects by ICMP"),
            Some(Action::RejectTcpReset) => Some("it rejects by TCP reset"),
            _ => None,
        };
        enforced.evidence.extend(reply.map(str::to_owned));
        if owner.marks(raw.mark) {
            enforced.evidence.push(format!("mark {:#x}", raw.mark));
        }
    }
    enforced
}

fn among(owned: BTreeMap<Owner, Vec<String>>) -> Enforced {
    let owners: Vec<_> = owned.keys().copied().collect();
    let evidence = match owners[..] {
        [_] => owned.into_values().flatten().collect(),
        _ => Vec::new(),
    };
    Enforced { owners, evidence }
}

/// Whether these rules can have dropped it.
fn can_be(raw: &RawDrop, dropper: &Dropper) -> bool {
    let at_hook = match raw.story.chain {
        Some(chain) => {
            chain.point == dropper.point && chain.bridge == (dropper.family == Family::Bridge)
        }
        None => true,
    };
    let destination = raw.flow.map(|flow| flow.destination);
    let of_family = !matches!(
        (dropper.family, destination),
        (Family::Ip, Some(IpAddr::V6(_))) | (Family::Ip6, Some(IpAddr::V4(_)))
    );
    let Falls {
        silent,
        icmp,
        reset,
        invalid,
    } = dropper.falls;
    // What connection tracking knows is not invalid.
    let invalid = invalid && raw.story.tracked != Some(true);
    let as_it_fell = match raw.action {
        Some(Action::RejectIcmp(_)) => icmp,
        Some(Action::RejectTcpReset) => reset,
        // A reject says nothing where the kernel limits the rate of its answers.
        Some(Action::Drop) | None => silent || icmp || reset || invalid,
    };
    let meant = match dropper.sign {
        // The kubelet's: what is marked for it, and what others send to the loopback addresses.
        Sign::Chain("KUBE-FIREWALL") => {
            raw.mark & KUBE_MARK_DROP != 0 || destination.is_some_and(|ip| ip.is_loopback())
        }
        _ => true,
    };
    at_hook && of_family && as_it_fell && meant
}

/// The kubelet's mark for what is to be dropped.
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kubelet_network_linux.go>
const KUBE_MARK_DROP: u32 = 0x8000;

#[cfg(test)]
mod tests;
