//! What happens at a drop.

use core::hint::black_box;
use core::mem::offset_of;
use core::ptr::copy_nonoverlapping;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::{debug, warn};
use tracer_common::{
    ABI, DropEvent, HEAD, Headers, IFNAME, MAGIC, NOTE_RESET, RECORD, carried, ethertype, field,
    is_refusal, parse_into,
};

use crate::clock;
use crate::config::{has_reason, is_unknown_protocol, wants};
use crate::flows::{self, Counted};
use crate::handover::{is_at_tables, is_ours};
use crate::ring;
use crate::skb::{Access, Captured, Copied, Device, SkBuff};
use crate::state::{Note, Scratch, This, count, this_cpu};
use crate::{story, streak};

/// A packet was dropped.
#[inline(always)]
pub(crate) fn on_drop<A: Access>(ctx: &impl EbpfContext, skb: u64, location: u64, reason: u32) {
    let Some(this) = this_cpu() else {
        return;
    };
    let note = this.take_note(skb);
    // Black boxes: however it was decided, the verifier looks at what follows once.
    if !black_box(wants(reason, location)) {
        count!(this, ignored);
        return;
    }
    // A claim is laid only to what is counted.
    let Some(scratch) = this.enter() else {
        count!(this, nested);
        return;
    };
    if black_box(is_ours(skb)) {
        let drop = Dropped {
            skb,
            location,
            reason,
            note,
        };
        record::<A>(ctx, this, scratch, &drop);
    }
    this.leave();
}

/// The kernel is about to send an ICMP error for a packet. One that is no refusal says nothing of a drop: a packet
/// that is redirected goes on, and may be dropped without a word.
#[inline(always)]
pub(crate) fn on_icmp_send(protocol: u8, skb: u64, kind: u8, code: u8) {
    if is_refusal(protocol, kind, code) {
        on_reply(skb, u32::from(kind) | u32::from(code) << 8);
    }
}

/// The same, with a TCP reset.
#[inline(always)]
pub(crate) fn on_reset(skb: u64) {
    on_reply(skb, NOTE_RESET);
}

#[inline(always)]
fn on_reply(skb: u64, reply: u32) {
    let Some(this) = this_cpu() else {
        return;
    };
    count!(this, rejects);
    this.note(skb, clock::now(), reply);
}

/// What the tracepoint tells.
struct Dropped {
    skb: u64,
    location: u64,
    reason: u32,
    note: Note,
}

#[inline(always)]
fn record<A: Access>(ctx: &impl EbpfContext, this: This, scratch: *mut Scratch, drop: &Dropped) {
    let Some(skb) = SkBuff::<A>::new(drop.skb, scratch) else {
        count!(this, unreadable);
        warn!(ctx, "sk_buff {:x} cannot be read", drop.skb);
        return;
    };
    let ethertype = skb.ethertype();
    if is_unknown_protocol(drop.location, ethertype) {
        count!(this, ignored);
        return;
    }
    let extent = skb.extent();
    // SAFETY: the scratch is a live map value of this CPU; the event in it, the packet, the first bytes and
    // the key are parts that do not overlap.
    let (event, key, glance) = unsafe {
        (
            &mut (*scratch).event,
            &mut (*scratch).key,
            &raw const (*scratch).glance,
        )
    };
    event.fields = if has_reason() { field::REASON } else { 0 };
    event.ethertype = ethertype;
    event.reason = drop.reason;
    event.location = drop.location;
    answer(event, drop);
    let device = place(event, &skb);
    key.fill_circumstances(event);
    let lately = clock::lately(scratch);
    let is_plain = match extent.glance(scratch) {
        // SAFETY: as above; nobody writes it now.
        Some(there) => key.fill_plain(unsafe { &*glance }, there, event.ethertype),
        None => false,
    };
    if is_plain {
        if streak::goes_on(this, key, lately) {
            count!(this, folded);
            return;
        }
        match flows::again(scratch, key, event, lately) {
            Some(Counted::Again) => {
                streak::begin(this, key, lately);
                count!(this, folded);
                return;
            }
            Some(_) => return has_no_room(this, event.reason),
            None => {}
        }
    }

    let packet = extent.capture(&skb, scratch);
    parse(ctx, this, event, &packet);
    if !is_plain {
        key.fill_headers(event);
        match flows::again(scratch, key, event, lately) {
            Some(Counted::Again) => {
                count!(this, folded);
                return;
            }
            Some(_) => return has_no_room(this, event.reason),
            None => {}
        }
    }

    if is_at_tables() {
        event.fields |= field::DEAF;
    }
    let now = clock::now();
    event.ktime_ns = now;
    describe(event, &skb, &packet, device.as_ref());
    story::tell(ctx, this, scratch, &skb, now);
    match flows::enter(scratch, now) {
        Counted::First => hand_over(this, scratch, &packet, now),
        Counted::Again => count!(this, folded),
        Counted::NoRoom => has_no_room(this, event.reason),
    }
}

/// What has no room in the table of flows is counted all the same.
#[inline(always)]
fn has_no_room(this: This, reason: u32) {
    flows::overflow(reason, 1);
    count!(this, overflowed);
}

/// What the packet's headers say.
#[inline(always)]
fn parse(ctx: &impl EbpfContext, this: This, event: &mut DropEvent, packet: &Captured) {
    zero_headers(&mut event.headers);
    event.carried = 0;
    if parse_into(packet, event.ethertype, &mut event.headers).is_some() {
        event.fields |= field::HEADERS;
        event.carried = carried(packet, &event.headers);
    } else {
        // What the parser left there means nothing.
        zero_headers(&mut event.headers);
        count!(this, unparsed);
        debug!(
            ctx,
            "no IP headers: ethertype {:x}, reason {}", event.ethertype, event.reason
        );
    }
}

/// What the sender was told.
#[inline(always)]
fn answer(event: &mut DropEvent, drop: &Dropped) {
    let (answered, reply) = match drop.note.reply() {
        Some(NOTE_RESET) => (field::TCP_RESET, 0),
        Some(icmp) => (field::ICMP_REPLY, icmp),
        None => (0, 0),
    };
    event.fields |= answered;
    event.reply_type = reply as u8;
    event.reply_code = (reply >> 8) as u8;
}

/// Index of the loopback device, <https://github.com/torvalds/linux/blob/v6.18/include/net/flow.h>.
const LOOPBACK: u32 = 1;

/// A device that was at hand one way or the other.
enum Place<A> {
    At(Device<A>),
    /// Not at a device yet: where its route leads it.
    Bound(Device<Copied>),
}

/// Where the packet was, in numbers.
#[inline(always)]
fn place<A: Access>(event: &mut DropEvent, skb: &SkBuff<A>) -> Option<Place<A>> {
    event.ifindex = 0;
    event.netns = 0;
    // `nf_send_unreach6` gives a packet of this machine's own the loopback device before it answers it.
    // <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/netfilter/nf_reject_ipv6.c>
    let at = skb.device().filter(|device| {
        event.ethertype != ethertype::IPV6
            || device.ifindex() != Some(LOOPBACK)
            || !skb.is_sent_here()
    });
    let place = match at {
        Some(device) => {
            number_device(event, &device);
            Some(Place::At(device))
        }
        None => skb.route_device().map(|device| {
            number_device(event, &device);
            event.fields |= field::FROM_ROUTE;
            Place::Bound(device)
        }),
    };
    if event.fields & field::NETNS == 0
        && let Some(inode) = skb.socket_netns()
    {
        event.netns = inode;
        event.fields |= field::NETNS;
    }
    place
}

#[inline(always)]
fn number_device<A: Access>(event: &mut DropEvent, device: &Device<A>) {
    if let Some(ifindex) = device.ifindex() {
        event.ifindex = ifindex;
    }
    if let Some(inode) = device.netns() {
        event.netns = inode;
        event.fields |= field::NETNS;
    }
}

/// What only the first packet of a flow is asked.
#[inline(always)]
fn describe<A: Access>(
    event: &mut DropEvent,
    skb: &SkBuff<A>,
    packet: &Captured,
    place: Option<&Place<A>>,
) {
    event.magic = MAGIC;
    event.abi = ABI;
    event.size = RECORD;
    event.count = 1;
    event.mark = skb.mark();
    event.length = packet.length();
    event.captured = packet.captured();
    event.reserved = 0;
    let name = match place {
        Some(Place::At(device)) => device.name(),
        Some(Place::Bound(device)) => device.name(),
        None => None,
    };
    if name.is_some() {
        event.fields |= field::INTERFACE;
    }
    const { assert!(IFNAME == 16) };
    put(&mut event.ifname, name.unwrap_or([0; 2]));
}

/// Hands the record to user space; where the ring is full, user space finds it in the table.
#[inline(always)]
fn hand_over(this: This, scratch: *mut Scratch, packet: &Captured, now: u64) {
    let Some(mut entry) = ring::reserve() else {
        count!(this, ring_full);
        return;
    };
    let event: *mut DropEvent = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a `DropEvent`, aligned to 8 bytes; the head and the packet are all
    // of it. As words: bytes would be copied one by one.
    unsafe {
        copy_nonoverlapping(
            (&raw const (*scratch).event).cast::<[u64; HEAD / 8]>(),
            event.cast::<[u64; HEAD / 8]>(),
            1,
        );
        packet.copy_into(&mut (*event).packet);
    }
    count!(this, recorded);
    ring::submit(entry, now);
}

/// Writes 16 bytes as words: the compiler would call a function that goes byte by byte.
#[inline(always)]
pub(crate) fn put(to: &mut [u8; 16], words: [u64; 2]) {
    let to = to.as_mut_ptr().cast::<u64>();
    // SAFETY: 16 bytes are two words; wherever they stand in an event is a multiple of 8 (asserted below).
    unsafe {
        to.write_volatile(words[0]);
        to.add(1).write_volatile(words[1]);
    }
}

const _: () = assert!(
    offset_of!(DropEvent, ifname).is_multiple_of(8)
        && offset_of!(DropEvent, original).is_multiple_of(8)
        && offset_of!(DropEvent, other).is_multiple_of(8)
);

/// [`Headers`] as words of their alignment.
type HeaderWords = [u32; size_of::<Headers>() / 4];

/// Zeroes headers word by word: the compiler would call a `memset` that goes byte by byte, which takes
/// longer than all the rest of the program.
#[inline(always)]
fn zero_headers(headers: &mut Headers) {
    let words = (&raw mut *headers).cast::<u32>();
    for word in 0..size_of::<HeaderWords>() / 4 {
        // SAFETY: the headers are that many words, aligned to as many bytes.
        unsafe { words.add(word).write_volatile(0) };
    }
}
