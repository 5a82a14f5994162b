//! What user space tells the kernel programs before they are loaded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of a field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Bits of [`Config::features`].
pub mod feature {
    /// `kfree_skb` carries the drop reason (kernels since 5.17).
    pub const REASON: u32 = 1 << 0;
    /// Every reason is of interest, also one the bitmap has no bit for.
    pub const ALL_REASONS: u32 = 1 << 1;
    /// No reason says what is of interest: the function does that the packet was freed in.
    pub const BY_LOCATION: u32 = 1 << 2;
    /// A packet's bytes can be read where they are in pages of their own (`bpf_dynptr_from_skb`).
    pub const PAGES: u32 = 1 << 3;
}

/// Number of a helper that there is not: the program calls it where [`feature::PAGES`] is set, and user space has put
/// the function there that is meant.
pub const PAGES_CALL: i32 = 0x7ab1_e5f0;

/// Read-only configuration: the verifier takes its values for constants.
///
/// Offsets are in bytes, from the running kernel's BTF; [`ABSENT`] where there is no such field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Config {
    /// Bits of [`feature`].
    pub features: u32,
    /// Wake the reader when this many bytes are waiting in the ring.
    pub wake_bytes: u32,
    /// Size of `struct sk_buff`.
    pub skb_size: u32,
    /// `sk_buff.head`.
    pub skb_head: u32,
    /// `sk_buff.data`.
    pub skb_data: u32,
    /// `sk_buff.len`.
    pub skb_len: u32,
    /// `sk_buff.data_len`.
    pub skb_data_len: u32,
    /// `sk_buff.network_header`.
    pub skb_network_header: u32,
    /// `sk_buff.mac_header`.
    pub skb_mac_header: u32,
    /// `sk_buff.mark`.
    pub skb_mark: u32,
    /// `sk_buff.protocol`.
    pub skb_protocol: u32,
    /// `sk_buff.dev`.
    pub skb_dev: u32,
    /// `sk_buff.sk`.
    pub skb_sk: u32,
    /// `sk_buff._skb_refdst`.
    pub skb_refdst: u32,
    /// `net_device.ifindex`.
    pub dev_ifindex: u32,
    /// `net_device.name`.
    pub dev_name: u32,
    /// `net_device.nd_net.net`.
    pub dev_net: u32,
    /// `sock.__sk_common.skc_net.net`.
    pub sock_net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `dst_entry.dev`.
    pub dst_dev: u32,
    /// `sk_buff.skb_iif`.
    pub skb_iif: u32,
    /// `sk_buff._nfct`.
    pub skb_nfct: u32,
    /// `nf_conn.status`.
    pub ct_status: u32,
    /// `nf_conn.tuplehash[0].tuple.dst.u3`: where the connection's first packet was sent to.
    pub ct_address: u32,
    /// `nf_conn.tuplehash[0].tuple.dst.u`.
    pub ct_port: u32,
    /// The reason of what gave none (`NOT_SPECIFIED`); [`ABSENT`] where there is no such.
    pub unspecified: u32,
    /// Where the function that runs softirqs begins; 0 where that is not known.
    pub softirq_start: u64,
    /// Its length in bytes.
    pub softirq_size: u64,
    /// Where the function that asks netfilter begins; 0 where that is not known.
    pub netfilter_start: u64,
    /// Its length in bytes.
    pub netfilter_size: u64,
    /// The same of the function that frees what tc drops on ingress.
    pub tc_ingress_start: u64,
    /// Its length in bytes.
    pub tc_ingress_size: u64,
    /// And on egress.
    pub tc_egress_start: u64,
    /// Its length in bytes.
    pub tc_egress_size: u64,
    /// Functions that carry out somebody's verdict and give no reason: what was to be queued for user space and
    /// could not be.
    pub queue_start: u64,
    /// Its length in bytes.
    pub queue_size: u64,
    /// What user space has decided of a queued packet.
    pub reinject_start: u64,
    /// Its length in bytes.
    pub reinject_size: u64,
    /// What a program at a netkit device has decided.
    pub netkit_start: u64,
    /// Its length in bytes.
    pub netkit_size: u64,
}

const _: () = assert!(size_of::<Config>() == 216);

impl Config {
    /// Nothing known, nothing wanted.
    pub const EMPTY: Self = Self {
        features: 0,
        wake_bytes: 0,
        skb_size: 0,
        skb_head: ABSENT,
        skb_data: ABSENT,
        skb_len: ABSENT,
        skb_data_len: ABSENT,
        skb_network_header: ABSENT,
        skb_mac_header: ABSENT,
        skb_mark: ABSENT,
        skb_protocol: ABSENT,
        skb_dev: ABSENT,
        skb_sk: ABSENT,
        skb_refdst: ABSENT,
        dev_ifindex: ABSENT,
        dev_name: ABSENT,
        dev_net: ABSENT,
        sock_net: ABSENT,
        net_inum: ABSENT,
        dst_dev: ABSENT,
        skb_iif: ABSENT,
        skb_nfct: ABSENT,
        ct_status: ABSENT,
        ct_address: ABSENT,
        ct_port: ABSENT,
        unspecified: ABSENT,
        softirq_start: 0,
        softirq_size: 0,
        netfilter_start: 0,
        netfilter_size: 0,
        tc_ingress_start: 0,
        tc_ingress_size: 0,
        tc_egress_start: 0,
        tc_egress_size: 0,
        queue_start: 0,
        queue_size: 0,
        reinject_start: 0,
        reinject_size: 0,
        netkit_start: 0,
        netkit_size: 0,
    };
}

/// Subsystems the reason bitmap has room for (`reason >> 16`; Linux 6.18 has 3).
const SUBSYSTEMS: u32 = 8;
/// Reasons a subsystem has room for (Linux 6.18's core has 128).
const PER_SUBSYSTEM: u32 = 256;

/// Reasons that are counted on their own.
pub const REASONS: u32 = SUBSYSTEMS * PER_SUBSYSTEM;

/// Words of the bitmap of reasons that are of interest.
pub const REASON_WORDS: usize = (SUBSYSTEMS * PER_SUBSYSTEM / 64) as usize;

/// Word and bit of a reason in the bitmap; `None` where the bitmap has no room for it.
///
/// The upper half of a reason is its subsystem.
/// <https://github.com/torvalds/linux/blob/v6.18/include/net/dropreason.h#L7>
#[inline(always)]
#[must_use]
pub const fn reason_bit(reason: u32) -> Option<(usize, u64)> {
    let subsystem = reason >> 16;
    let number = reason & 0xffff;
    if subsystem >= SUBSYSTEMS || number >= PER_SUBSYSTEM {
        return None;
    }
    let index = subsystem * PER_SUBSYSTEM + number;
    Some(((index / 64) as usize, 1 << (index % 64)))
}

/// The reason of a bit: its word times 64 and its place in that. What [`reason_bit`] has no room for
/// shares the first.
#[must_use]
pub const fn reason_at(index: u32) -> u32 {
    ((index / PER_SUBSYSTEM) << 16) | (index % PER_SUBSYSTEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_bit_of_its_own() {
        assert_eq!(reason_bit(0), Some((0, 1)));
        assert_eq!(reason_bit(0x49), Some((1, 1 << 9)));
        assert_eq!(reason_bit(0x2_0001), Some((8, 2)));
        assert_eq!(reason_bit(0x7_00ff), Some((REASON_WORDS - 1, 1 << 63)));
    }

    #[test]
    fn a_bit_leads_back_to_its_reason() {
        for reason in [0, 0x49, 0x2_0001, 0x7_00ff] {
            let (word, bit) = reason_bit(reason).unwrap();
            assert_eq!(
                reason_at(u32::try_from(word).unwrap() * 64 + bit.trailing_zeros()),
                reason
            );
        }
    }

    #[test]
    fn what_does_not_fit_has_none() {
        assert_eq!(reason_bit(0x100), None);
        assert_eq!(reason_bit(0x8_0000), None);
        assert_eq!(reason_bit(u32::MAX), None);
    }
}
