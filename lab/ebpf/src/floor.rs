//! The least that a program at `kfree_skb` can do: what observing a drop costs at the very least.

use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};

/// Packets freed for a reason.
#[map]
static FREED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts, at a raw tracepoint.
#[raw_tracepoint(tracepoint = "kfree_skb")]
fn lab_floor_raw(_: RawTracePointContext) -> i32 {
    count()
}

/// Counts, at a BTF tracepoint.
#[btf_tracepoint(function = "kfree_skb")]
fn lab_floor_btf(_: BtfTracePointContext) -> i32 {
    count()
}

fn count() -> i32 {
    if let Some(count) = FREED.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own slot, and the kernel does not run a tracing program
        // inside itself.
        unsafe { *count += 1 };
    }
    0
}
