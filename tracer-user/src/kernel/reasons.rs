//! Drop reasons: the running kernel's names, and which of them are of interest.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use tracer_common::{REASON_WORDS, reason_bit};

use super::btf::Btf;

const PREFIX: &str = "SKB_DROP_REASON_";

/// Reasons that mean somebody's rule, by the names they have or had; each kernel knows some of them.
///
/// <https://github.com/torvalds/linux/blob/v6.18/include/net/dropreason-core.h>,
/// <https://github.com/torvalds/linux/blob/v6.18/net/openvswitch/drop.h>
const POLICY: &[&str] = &[
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    // As the two above were called in the first 5.18 candidates.
    "QDISC_INGRESS",
    "QDISC_EGRESS",
    "BPF_CGROUP_EGRESS",
    // A socket's own filter, but also a cgroup program on ingress.
    "SOCKET_FILTER",
    "SECURITY_HOOK",
    "XDP",
    // Open vSwitch: a drop action, and no action left (how OVN enforces policies).
    "OVS_DROP_EXPLICIT",
    "OVS_DROP_LAST_ACTION",
];

/// Modules that bring reasons of their own.
const MODULES: [&str; 2] = ["mac80211", "openvswitch"];

/// Which drops are of interest.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Reasons {
    /// Those that mean somebody's rule.
    #[default]
    Policy,
    /// Every one.
    All,
    /// Those with these names, as the kernel has them, `SKB_DROP_REASON_` left out or not.
    Named(Vec<String>),
}

impl Reasons {
    /// Whether a reason of that name means somebody's rule.
    pub fn means_a_rule(name: &str) -> bool {
        POLICY.contains(&name)
    }
}

impl FromStr for Reasons {
    type Err = std::convert::Infallible;

    /// `policy`, `all`, or names with commas between them. Names are looked up only when the kernel
    /// they are for is known.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "all" => Self::All,
            "policy" => Self::Policy,
            names => Self::Named(
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        })
    }
}

/// A drop reason that the running kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kernel has no drop reason `{name}`{}", near_text(.near))]
pub struct UnknownReason {
    /// As given.
    pub name: String,
    /// What it has that is written nearly so.
    pub near: Vec<String>,
}

fn near_text(near: &[String]) -> String {
    if near.is_empty() {
        "; `all` takes every one".to_owned()
    } else {
        format!("; did you mean {}?", near.join(" or "))
    }
}

/// The running kernel's drop reasons. Empty on kernels before 5.17, which give none.
#[derive(Clone, Debug, Default)]
pub struct ReasonNames(BTreeMap<u32, String>);

impl ReasonNames {
    /// From a kernel's own BTF.
    pub fn from_btf(btf: &Btf<'_>) -> Self {
        let mut names = Self::default();
        names.add(btf);
        names
    }

    /// Adds the reasons of modules that are loaded, from `folder` (`/sys/kernel/btf`).
    pub fn add_modules(&mut self, kernel: &Btf<'_>, folder: &Path) {
        for module in MODULES {
            if let Ok(data) = std::fs::read(folder.join(module))
                && let Ok(btf) = Btf::parse_module(data, kernel)
            {
                self.add(&btf);
            }
        }
    }

    fn add(&mut self, btf: &Btf<'_>) {
        let values = btf.enum_values(|name| name.ends_with("_drop_reason"));
        for (value, name) in values {
            let Ok(number) = u32::try_from(value) else {
                continue;
            };
            let short = name.strip_prefix(PREFIX).unwrap_or(name);
            // Bounds of the enum, not reasons.
            if short == "MAX" || short == "SUBSYS_MASK" {
                continue;
            }
            self.0.entry(number).or_insert_with(|| short.to_owned());
        }
    }

    /// Number and name of each.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.0.iter().map(|(number, name)| (*number, name.as_str()))
    }

    /// Name of a reason.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// Whether the kernel gives no reasons at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        self.iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(number, _)| number)
    }

    /// Whether each drop by netfilter and by tc has a reason of its own: since Linux 5.18. Before, from 5.15.58 and
    /// 5.17 on, only some have one.
    pub(super) fn tell_policies(&self) -> bool {
        let has = |name| self.number(name).is_some();
        has("NETFILTER_DROP") && (has("TC_INGRESS") || has("QDISC_INGRESS"))
    }

    /// The policy reasons this kernel has.
    pub fn policy(&self) -> Vec<&'static str> {
        POLICY
            .iter()
            .copied()
            .filter(|name| self.number(name).is_some())
            .collect()
    }

    pub(super) fn select(&self, reasons: &Reasons) -> Result<Selection, UnknownReason> {
        let mut selection = Selection {
            all: *reasons == Reasons::All,
            bitmap: [0; REASON_WORDS],
        };
        let numbers = match reasons {
            Reasons::All => Vec::new(),
            Reasons::Policy => POLICY.iter().filter_map(|name| self.number(name)).collect(),
            Reasons::Named(names) => names
                .iter()
                .map(|name| self.number(name).ok_or_else(|| self.unknown(name)))
                .collect::<Result<_, _>>()?,
        };
        for number in numbers {
            if let Some((word, bit)) = reason_bit(number) {
                selection.bitmap[word] |= bit;
            }
        }
        Ok(selection)
    }

    fn unknown(&self, name: &str) -> UnknownReason {
        let wanted = name
            .strip_prefix(PREFIX)
            .unwrap_or(name)
            .to_ascii_uppercase();
        let mut near: Vec<(usize, &str)> = self
            .iter()
            .map(|(_, known)| {
                let within = known.contains(&wanted) && !wanted.is_empty();
                (if within { 1 } else { distance(&wanted, known) }, known)
            })
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .collect();
        near.sort_unstable();
        UnknownReason {
            name: name.to_owned(),
            near: near
                .into_iter()
                .take(3)
                .map(|(_, name)| name.to_owned())
                .collect(),
        }
    }
}

/// The choice in the kernel program's form.
pub(super) struct Selection {
    pub(super) all: bool,
    pub(super) bitmap: [u64; REASON_WORDS],
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ReasonNames {
        ReasonNames(
            [
                (0, "SKB_NOT_DROPPED_YET"),
                (5, "SOCKET_FILTER"),
                (12, "NETFILTER_DROP"),
                (0x3e, "TC_EGRESS"),
                (0x49, "TC_INGRESS"),
                (0x2_0003, "OVS_DROP_EXPLICIT"),
            ]
            .map(|(number, name)| (number, name.to_owned()))
            .into(),
        )
    }

    fn selected(text: &str) -> Vec<u32> {
        let selection = names().select(&text.parse().unwrap()).unwrap();
        (0..0x8_0000)
            .filter(|reason| {
                reason_bit(*reason).is_some_and(|(word, bit)| selection.bitmap[word] & bit != 0)
            })
            .collect()
    }

    #[test]
    fn the_default_is_what_this_kernel_has_of_the_policy_reasons() {
        assert_eq!(selected("policy"), [5, 12, 0x3e, 0x49, 0x2_0003]);
        assert_eq!(
            names().policy(),
            [
                "NETFILTER_DROP",
                "TC_INGRESS",
                "TC_EGRESS",
                "SOCKET_FILTER",
                "OVS_DROP_EXPLICIT"
            ]
        );
    }

    #[test]
    fn some_reasons_are_not_enough() {
        let tells = |known: &[&str]| {
            let mut names = names();
            names.0.retain(|_, name| known.contains(&name.as_str()));
            names.tell_policies()
        };
        assert!(names().tell_policies());
        // Linux 5.17, and 5.15.58.
        assert!(!tells(&["SOCKET_FILTER"]));
        assert!(!tells(&["SOCKET_FILTER", "NETFILTER_DROP"]));
        assert!(tells(&["NETFILTER_DROP", "TC_INGRESS"]));
    }

    #[test]
    fn names_are_taken_with_prefix_and_in_any_case() {
        assert_eq!(
            selected("netfilter_drop, SKB_DROP_REASON_TC_EGRESS,"),
            [12, 0x3e]
        );
    }

    #[test]
    fn all_needs_no_bits() {
        assert!(names().select(&Reasons::All).unwrap().all);
        assert_eq!(selected("all"), [0; 0]);
    }

    #[test]
    fn an_unknown_name_is_an_error_with_its_neighbours() {
        let error = |name: &str| {
            let wanted = Reasons::Named(vec![name.to_owned()]);
            names().select(&wanted).err().expect("unknown").to_string()
        };
        assert_eq!(
            error("TC_INGRES"),
            "this kernel has no drop reason `TC_INGRES`; did you mean TC_INGRESS or TC_EGRESS?"
        );
        assert_eq!(
            error("netfilter"),
            "this kernel has no drop reason `netfilter`; did you mean NETFILTER_DROP?"
        );
        assert_eq!(
            error("BOGUS"),
            "this kernel has no drop reason `BOGUS`; `all` takes every one"
        );
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("TC_EGRESS", "TC_EGRESS"), 0);
    }
}
