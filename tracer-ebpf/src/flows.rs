//! The table of flows, and what is counted where it is full.
//!
//! A plain hash table: one that evicts by itself (LRU) would lose counts. User space takes entries out.
//! Its memory is taken when it is made, because a drop may happen where none can be had.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use tracer_common::{DropEvent, FlowKey, FlowValue, HEAD, REASONS, reason_bit};

use crate::handover::taking_of;
use crate::recent::Recent;
use crate::state::Scratch;

/// User space sets the size.
#[map]
static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(16_384, 0);

/// Packets that found no room in [`FLOWS`], by the bit of their reason.
#[map]
static OVERFLOW: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

/// `BPF_NOEXIST`.
const NEW: u64 = 1;

/// `-E2BIG`: the key is not in the table, and there is no room for it,
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/hashtab.c> (`htab_map_update_elem`).
const FULL: i32 = -7;

/// What became of a packet.
pub(crate) enum Counted {
    /// It is the first of its flow.
    First,
    /// It was added to its flow.
    Again,
    /// There is no room for its flow.
    NoRoom,
}

/// Adds a packet to its flow, or finds that there is no room for it; `None` where it is to be entered. `lately`: the
/// time by the timer's ticks.
#[inline(always)]
pub(crate) fn again(
    scratch: *mut Scratch,
    key: &mut FlowKey,
    event: &mut DropEvent,
    lately: u64,
) -> Option<Counted> {
    let recent = Recent::of(key);
    // Room that is made since is found in the timer's next tick. In a flood of new flows most packets end here,
    // and nothing of them is read that is not counted.
    // SAFETY: the scratch is a live map value of this CPU.
    let is_full = unsafe { (*scratch).full_ns == lately };
    // Read where it is not needed, too: its memory is on the way while the table is looked into, and at hand when
    // the flow is entered.
    if is_full {
        if !recent.is_there(lately) {
            return Some(Counted::NoRoom);
        }
    } else {
        recent.fetch();
    }
    if let Some(flow) = find(key) {
        let taking = add_to(flow, lately);
        if taking == 0 {
            recent.renew(lately);
            return Some(Counted::Again);
        }
        // Where it has begun already, that is found when it is entered.
        key.begin_anew(event, taking);
    }
    is_full.then_some(Counted::NoRoom)
}

#[inline(always)]
fn find(key: &FlowKey) -> Option<*mut FlowValue> {
    FLOWS.get_ptr_mut(key)
}

/// Adds a packet to a flow in the table, unless that is being taken out: the number of the taking, or 0.
#[inline(always)]
fn add_to(flow: *mut FlowValue, now: u64) -> u32 {
    // SAFETY: the pointer is a live map value, checked by the verifier; one word, which other CPUs write.
    let last_ns = unsafe { (&raw const (*flow).last_ns).read_volatile() };
    let taking = taking_of(last_ns);
    if taking == 0 {
        add(flow, 1, now);
    }
    taking
}

/// Adds packets to a flow, which may have been counted beside the table: with those in sight it is not taken out.
/// `false` where it is not there.
#[inline(always)]
pub(crate) fn bring(key: &FlowKey, packets: u64, now: u64) -> bool {
    let Some(flow) = find(key) else {
        return false;
    };
    add(flow, packets, now);
    true
}

#[inline(always)]
fn add(flow: *mut FlowValue, packets: u64, now: u64) {
    // SAFETY: the pointer is a live map value, checked by the verifier; CPUs share it, hence the
    // atomic. The time is one word, and of CPUs that write it at once each is right enough; what a streak
    // brings in late does not set it back.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*flow).packets, packets);
        let last = &raw mut (*flow).last_ns;
        if last.read_volatile() < now {
            last.write_volatile(now);
        }
    }
}

/// Enters a packet's flow into the table.
#[inline(always)]
pub(crate) fn enter(scratch: *mut Scratch, now: u64) -> Counted {
    // SAFETY: the scratch is a live map value of this CPU; event, key and value are parts of it that
    // do not overlap, and an event begins with its head.
    let (key, value) = unsafe {
        let head = (&raw const (*scratch).event).cast::<[u64; HEAD / 8]>();
        let value = &raw mut (*scratch).value;
        core::ptr::copy_nonoverlapping(head, &raw mut (*value).head, 1);
        (*value).packets = 1;
        (*value).last_ns = now;
        (&(*scratch).key, &*value)
    };
    match FLOWS.insert(key, value, NEW) {
        Ok(()) => {
            Recent::of(key).renew(now);
            Counted::First
        }
        Err(FULL) => {
            // SAFETY: as above; the reference into the scratch is not used any more.
            unsafe { (*scratch).full_ns = (*scratch).tick_ns };
            Counted::NoRoom
        }
        // Another CPU was first.
        Err(_) => match find(key) {
            Some(flow) if add_to(flow, now) == 0 => Counted::Again,
            _ => Counted::NoRoom,
        },
    }
}

/// Counts packets by their reason alone.
#[inline(always)]
pub(crate) fn overflow(reason: u32, packets: u64) {
    let index = match reason_bit(reason) {
        Some((word, bit)) => word as u32 * 64 + bit.trailing_zeros(),
        None => 0,
    };
    if let Some(count) = OVERFLOW.get_ptr_mut(index) {
        // SAFETY: the pointer is a live map value of this CPU, checked by the verifier.
        unsafe { *count = (*count).wrapping_add(packets) };
    }
}
