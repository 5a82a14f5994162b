//! Whether a packet is ours to count, or that of other programs of tracer, see
//! [`tracer_common::handover`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use tracer_common::handover::{self, AT_TABLES, CLAIM, COUNT, RETIRED, TAKE_OVER};

/// Written by user space.
#[map]
static MODE: Array<u32> = Array::with_max_entries(3, 0);

/// The packet that older programs counted last, by its `sk_buff`'s address; shared with them.
#[map]
static CLAIMS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

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

/// The rare case.
#[inline(always)]
fn decide(mode: u32, skb: u64) -> bool {
    let Some(claim) = CLAIMS.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: the pointer is a live map value of this CPU, checked by the verifier.
    let claimed = unsafe {
        match mode {
            CLAIM => {
                *claim = skb;
                return true;
            }
            RETIRED => return false,
            _ => {
                let claimed = *claim == skb;
                if claimed {
                    // The address will be used again.
                    *claim = 0;
                }
                claimed
            }
        }
    };
    mode == TAKE_OVER && !claimed
}
