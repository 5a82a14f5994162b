//! Whether a packet is ours to count, or that of other programs of tracer, see
//! [`tracer_common::handover`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use tracer_common::handover::{
    self, AT_TABLES, CLAIM, COUNT, LEAVING, MOST_SILENT, SILENT_BITS, TAKE_OVER,
};

use crate::clock;

/// Written by user space.
#[map]
static MODE: Array<u32> = Array::with_max_entries(4, 0);

/// The packets that older programs counted last, by their `sk_buff`s' addresses, the last one first; shared with
/// them. Two, because an interrupt may drop one between the older programs' turn and ours.
#[map]
static CLAIMS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Whether this packet is ours.
#[inline(always)]
pub(crate) fn is_ours(skb: u64) -> bool {
    let mode = match MODE.get(handover::MODE) {
        Some(mode) => *mode,
        None => COUNT,
    };
    mode == COUNT || decide(mode, skb)
}

/// Whether user space is at the tables. For as long as a process reads a map, no kprobe's program runs on its CPU
/// (`bpf_prog_active`), while tracepoints' do.
///
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/bpf.h> (`bpf_disable_instrumentation`)
#[inline(always)]
pub(crate) fn is_at_tables() -> bool {
    matches!(MODE.get(AT_TABLES), Some(at) if *at != 0)
}

/// The number of the taking that a flow which had its last packet then leaves the table in, or 0.
#[inline(always)]
pub(crate) fn taking_of(last_ns: u64) -> u32 {
    let leaving = match MODE.get(LEAVING) {
        Some(leaving) => *leaving,
        None => 0,
    };
    let silent = u64::from(leaving & MOST_SILENT) * 1_000_000;
    // By the clock itself: where a virtual machine is not given its turn, its timer's ticks come late.
    if silent == 0 || clock::now().saturating_sub(last_ns) < silent {
        return 0;
    }
    leaving >> SILENT_BITS
}

/// The rare case.
#[inline(always)]
fn decide(mode: u32, skb: u64) -> bool {
    match mode {
        CLAIM => {
            claim(skb);
            true
        }
        TAKE_OVER => !take_claim(0, skb) && !take_claim(1, skb),
        _ => false,
    }
}

#[inline(always)]
fn claim(skb: u64) {
    let Some(last) = CLAIMS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointers are live map values of this CPU, checked by the verifier.
    unsafe {
        // There is one only where programs of an earlier version made the map.
        if let Some(last_but_one) = CLAIMS.get_ptr_mut(1) {
            *last_but_one = *last;
        }
        *last = skb;
    }
}

/// Whether older programs laid claim to a packet in this place. It is cleared then: the address will be used again.
#[inline(always)]
fn take_claim(place: u32, skb: u64) -> bool {
    let Some(claim) = CLAIMS.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: as in `claim`.
    unsafe {
        let claimed = *claim == skb;
        if claimed {
            *claim = 0;
        }
        claimed
    }
}
