//! Targets and matches of `x_tables`, wherever they stand.

use crate::enforcer::{Falls, Family};

/// `IPT_TCP_RESET` and `IP6T_TCP_RESET`,
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter_ipv4/ipt_REJECT.h> and
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter_ipv6/ip6t_REJECT.h>.
const RESET: u32 = 7;
const RESET6: u32 = 6;

/// In `struct xt_conntrack_mtinfo3`: what is matched, what of that is inverted, and which states.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter/xt_conntrack.h>
const MATCHED: usize = 146;
const INVERTED: usize = 148;
const STATES: usize = 150;
/// `XT_CONNTRACK_STATE` and `XT_CONNTRACK_STATE_INVALID`.
const STATE: u16 = 1;
const INVALID: u16 = 1;

/// How packets fall by a target; `None` where they do not.
pub(super) fn falls(target: &str, info: &[u8], family: Family) -> Option<Falls> {
    match target {
        "DROP" => Some(Falls {
            silent: true,
            ..Falls::default()
        }),
        "REJECT" => {
            let with = info.first_chunk().copied().map(u32::from_ne_bytes);
            let reset = with == Some(if family == Family::Ip6 { RESET6 } else { RESET });
            Some(Falls {
                reset,
                icmp: !reset,
                ..Falls::default()
            })
        }
        _ => None,
    }
}

/// Whether a match lets through what connection tracking calls invalid, and nothing else.
pub(super) fn is_of_invalid(name: &str, info: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = info.get(at..)?.first_chunk()?;
        Some(u16::from_ne_bytes(*bytes))
    };
    name == "conntrack"
        && number(MATCHED).is_some_and(|matched| matched & STATE != 0)
        && number(INVERTED).is_some_and(|inverted| inverted & STATE == 0)
        && number(STATES) == Some(INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conntrack(matched: u16, inverted: u16, states: u16) -> Vec<u8> {
        let mut info = vec![0; 160];
        info[MATCHED..MATCHED + 2].copy_from_slice(&matched.to_ne_bytes());
        info[INVERTED..INVERTED + 2].copy_from_slice(&inverted.to_ne_bytes());
        info[STATES..STATES + 2].copy_from_slice(&states.to_ne_bytes());
        info
    }

    #[test]
    fn a_match_of_the_invalid_is_told_from_others() {
        assert!(is_of_invalid("conntrack", &conntrack(1, 0, 1)));
        assert!(
            !is_of_invalid("conntrack", &conntrack(1, 1, 1)),
            "! --ctstate"
        );
        assert!(
            !is_of_invalid("conntrack", &conntrack(1, 0, 9)),
            "INVALID,NEW"
        );
        assert!(!is_of_invalid("conntrack", &conntrack(2, 0, 1)));
        assert!(!is_of_invalid("state", &conntrack(1, 0, 1)));
        assert!(!is_of_invalid("conntrack", &[1; 20]));
    }

    #[test]
    fn rejects_tell_how() {
        let with = |number: u32, family| falls("REJECT", &number.to_ne_bytes(), family).unwrap();
        assert!(with(3, Family::Ip).icmp);
        assert!(with(7, Family::Ip).reset);
        assert!(with(6, Family::Ip6).reset);
        assert!(with(7, Family::Ip6).icmp);
        assert_eq!(falls("LOG", &[], Family::Ip), None);
    }
}
