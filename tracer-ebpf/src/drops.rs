//! What happens at a drop.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::{debug, warn};
use tracer_common::{ABI, DropEvent, Headers, MAGIC, field, parse_into};

use crate::config::{has_reason, wants};
use crate::ring;
use crate::skb::{Captured, SkBuff};
use crate::state::{Note, Scratch, This, count, this_cpu};

/// A packet was dropped.
#[inline(always)]
pub(crate) fn on_drop(ctx: &impl EbpfContext, skb: u64, location: u64, reason: u32) {
    let Some(this) = this_cpu() else {
        return;
    };
    let note = this.take_note(skb);
    if !wants(reason) {
        count!(this, ignored);
        return;
    }
    let Some(scratch) = this.enter() else {
        count!(this, nested);
        return;
    };
    let drop = Dropped {
        skb,
        location,
        reason,
        note,
    };
    record(ctx, this, scratch, &drop);
    this.leave();
}

/// The kernel is about to answer a packet it will not deliver.
#[inline(always)]
pub(crate) fn on_icmp_send(skb: u64, kind: u8, code: u8) {
    let Some(this) = this_cpu() else {
        return;
    };
    count!(this, rejects);
    // SAFETY: takes nothing, returns the time.
    this.note(skb, unsafe { bpf_ktime_get_ns() }, kind, code);
}

/// What the tracepoint tells.
struct Dropped {
    skb: u64,
    location: u64,
    reason: u32,
    note: Option<Note>,
}

#[inline(always)]
fn record(ctx: &impl EbpfContext, this: This, scratch: *mut Scratch, drop: &Dropped) {
    // SAFETY: takes nothing, returns the time.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(skb) = SkBuff::copy(drop.skb, scratch) else {
        count!(this, unreadable);
        warn!(ctx, "sk_buff {:x} cannot be read", drop.skb);
        return;
    };
    let packet = skb.packet(scratch);
    let ethertype = skb.ethertype();
    // SAFETY: the scratch is a live map value of this CPU, and `packet` reads other parts of it.
    let headers = unsafe { &mut (*scratch).headers };
    let parsed = parse_into(&packet, ethertype, headers).is_some();
    if !parsed {
        *headers = Headers::default();
        count!(this, unparsed);
        debug!(
            ctx,
            "no IP headers: ethertype {:x}, reason {}", ethertype, drop.reason
        );
    }

    // A table of flows, which folds repeats, belongs here: all of its key is known, and nothing is
    // reserved yet.

    let Some(mut entry) = ring::reserve() else {
        count!(this, ring_full);
        return;
    };
    let event: *mut DropEvent = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a `DropEvent`, aligned to 8 bytes; every field is written below
    // before the record is handed over.
    unsafe {
        fill(&mut *event, now, drop, &skb, &packet, ethertype);
        (*event).headers = *headers;
        if parsed {
            (*event).fields |= field::HEADERS;
        }
    }
    count!(this, recorded);
    ring::submit(entry, now);
}

#[inline(always)]
fn fill(
    event: &mut DropEvent,
    now: u64,
    drop: &Dropped,
    skb: &SkBuff,
    packet: &Captured,
    ethertype: u16,
) {
    let mut fields = if has_reason() { field::REASON } else { 0 };
    event.magic = MAGIC;
    event.abi = ABI;
    event.size = const { size_of::<DropEvent>() as u16 };
    event.ktime_ns = now;
    event.count = 1;
    event.location = drop.location;
    event.reason = drop.reason;
    event.mark = skb.mark();
    event.length = packet.length();
    event.captured = packet.captured();
    event.ethertype = ethertype;
    event.reserved = [0; 6];

    let (kind, code) = match drop.note.and_then(|note| note.icmp(now)) {
        Some(icmp) => {
            fields |= field::ICMP_REPLY;
            icmp
        }
        None => (0, 0),
    };
    event.reply_type = kind;
    event.reply_code = code;

    let (device, from_route) = skb.device();
    event.ifindex = 0;
    if device.name_into(&mut event.ifname)
        && let Some(ifindex) = device.ifindex()
    {
        event.ifindex = ifindex;
        fields |= field::INTERFACE;
        if from_route {
            fields |= field::FROM_ROUTE;
        }
    }
    event.netns = match device.netns().or_else(|| skb.socket_netns()) {
        Some(inode) => {
            fields |= field::NETNS;
            inode
        }
        None => 0,
    };
    event.fields = fields;
    packet.copy_into(&mut event.packet);
}
