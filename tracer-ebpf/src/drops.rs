//! What happens at a drop.

use core::ptr::copy_nonoverlapping;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::{debug, warn};
use tracer_common::{ABI, DropEvent, Headers, IFNAME, MAGIC, field, parse_into};

use crate::config::{has_reason, wants};
use crate::ring;
use crate::skb::{Access, Captured, Device, SkBuff};
use crate::state::{Note, Scratch, This, count, this_cpu};

/// A packet was dropped.
#[inline(always)]
pub(crate) fn on_drop<A: Access>(ctx: &impl EbpfContext, skb: u64, location: u64, reason: u32) {
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
    record::<A>(ctx, this, scratch, &drop);
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
fn record<A: Access>(ctx: &impl EbpfContext, this: This, scratch: *mut Scratch, drop: &Dropped) {
    // SAFETY: takes nothing, returns the time.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(skb) = SkBuff::<A>::new(drop.skb, scratch) else {
        count!(this, unreadable);
        warn!(ctx, "sk_buff {:x} cannot be read", drop.skb);
        return;
    };
    let packet = skb.packet(scratch);
    let ethertype = skb.ethertype();
    // SAFETY: the scratch is a live map value of this CPU, and `packet` reads other parts of it.
    let headers = unsafe {
        zero_headers(scratch);
        &mut (*scratch).headers
    };
    let parsed = parse_into(&packet, ethertype, headers).is_some();
    if !parsed {
        // SAFETY: as above; what the parser left there means nothing.
        unsafe { zero_headers(scratch) };
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
        // As words: an assignment becomes a `memmove` that goes byte by byte.
        copy_nonoverlapping(
            (&raw const (*scratch).headers).cast::<HeaderWords>(),
            (&raw mut (*event).headers).cast::<HeaderWords>(),
            1,
        );
        if parsed {
            (*event).fields |= field::HEADERS;
        }
    }
    count!(this, recorded);
    ring::submit(entry, now);
}

/// [`Headers`] as words of their alignment.
type HeaderWords = [u32; size_of::<Headers>() / 4];

/// Zeroes the scratch's headers, word by word: the compiler would call a `memset` that goes byte by
/// byte, which takes longer than all the rest of the program.
///
/// # Safety
///
/// `scratch` must be a live map value of this CPU.
#[inline(always)]
unsafe fn zero_headers(scratch: *mut Scratch) {
    // SAFETY: the headers are that many words, aligned to as many bytes.
    unsafe {
        let words = (&raw mut (*scratch).headers).cast::<u32>();
        for word in 0..size_of::<HeaderWords>() / 4 {
            words.add(word).write_volatile(0);
        }
    }
}

#[inline(always)]
fn fill<A: Access>(
    event: &mut DropEvent,
    now: u64,
    drop: &Dropped,
    skb: &SkBuff<A>,
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
    event.reserved = 0;
    event.reserved_too = 0;

    let (kind, code) = match drop.note.and_then(|note| note.icmp(now)) {
        Some(icmp) => {
            fields |= field::ICMP_REPLY;
            icmp
        }
        None => (0, 0),
    };
    event.reply_type = kind;
    event.reply_code = code;

    event.ifindex = 0;
    event.ifname = [0; IFNAME];
    event.netns = 0;
    // Not at a device yet: where its route leads it.
    fields |= match skb.device() {
        Some(device) => fill_device(event, &device),
        None => match skb.route_device() {
            Some(device) => field::FROM_ROUTE | fill_device(event, &device),
            None => 0,
        },
    };
    if fields & field::NETNS == 0
        && let Some(inode) = skb.socket_netns()
    {
        event.netns = inode;
        fields |= field::NETNS;
    }
    event.fields = fields;
    packet.copy_into(&mut event.packet);
}

/// What there is to say of the device, and which fields that fills.
#[inline(always)]
fn fill_device<A: Access>(event: &mut DropEvent, device: &Device<A>) -> u32 {
    let mut fields = 0;
    if let (Some(ifindex), Some([first, second])) = (device.ifindex(), device.name()) {
        event.ifindex = ifindex;
        event.ifname[..8].copy_from_slice(&first.to_ne_bytes());
        event.ifname[8..].copy_from_slice(&second.to_ne_bytes());
        fields |= field::INTERFACE;
    }
    if let Some(inode) = device.netns() {
        event.netns = inode;
        fields |= field::NETNS;
    }
    fields
}
