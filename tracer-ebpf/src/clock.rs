//! What time it is.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::state::Scratch;

/// Nanoseconds since the machine started.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing, returns the time.
    unsafe { bpf_ktime_get_ns() }
}

/// The same, up to a tick of the timer ago: the clock is read once a tick, because that takes a good part of
/// what a repeat costs. Counting ticks takes nothing; the verifier makes a load of it.
#[inline(always)]
pub(crate) fn lately(scratch: *mut Scratch) -> u64 {
    // SAFETY: the helper takes nothing; the scratch is a live map value of this CPU.
    unsafe {
        let tick = bpf_jiffies64();
        if (*scratch).tick != tick {
            (*scratch).tick = tick;
            (*scratch).tick_ns = now();
        }
        (*scratch).tick_ns
    }
}
