//! What is told of a flow's first packet beside what is in it: who asked netfilter about it, where it was
//! sent to before it was translated, who sent it.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_stack};
use tracer_common::{COMM, DropEvent, WALK_BURST, WALK_EVERY_NS, field};

use crate::config::config;
use crate::drops::put;
use crate::skb::{Access, SkBuff};
use crate::state::{FRAMES, Scratch, This};

/// Frames from ours to who asked netfilter: our program and the kernel's way to it are five or six, a
/// chain of `nf_tables`' nat type another four.
const NEAR: usize = 20;

/// Adds it to the event in the scratch.
#[inline(always)]
pub(crate) fn tell<A: Access>(
    ctx: &impl EbpfContext,
    this: This,
    scratch: *mut Scratch,
    skb: &SkBuff<A>,
    now: u64,
) {
    // SAFETY: the scratch is a live map value of this CPU.
    let event = unsafe { &mut (*scratch).event };
    event.caller = 0;
    event.other_number = 0;
    event.original_port = 0;
    event.reserved_last = 0;
    event.fields |= match skb.is_tracked() {
        Some(true) => field::TRACKED,
        Some(false) => field::UNTRACKED,
        None => 0,
    };
    let (original, port) = match skb.original() {
        Some(original) => {
            event.fields |= field::ORIGINAL;
            original
        }
        None => ([0; 2], 0),
    };
    event.original_port = port;
    put(&mut event.original, original);
    put(&mut event.other, [0; 2]);

    let deep = skb.is_sent_here();
    let Some(frames) = walk(ctx, this, scratch, deep, now) else {
        return;
    };
    // SAFETY: as above; frames and event are parts that do not overlap.
    let found = unsafe { asker(&(*scratch).frames) };
    if let Some(asker) = found {
        event.caller = asker;
        event.fields |= field::CALLER;
    }
    if !deep {
        other_device(event, skb);
        return;
    }
    // SAFETY: as above.
    if unsafe { is_process(&(*scratch).frames, frames) } {
        event.other_number = (bpf_get_current_pid_tgid() >> 32) as u32;
        // SAFETY: the helper writes so many bytes there at most.
        let named = unsafe { bpf_get_current_comm(event.other.as_mut_ptr().cast(), COMM as u32) };
        if named == 0 {
            event.fields |= field::PROCESS;
        }
    }
}

/// A packet that passes through has two devices. It is at the one, which the event names already; this is the other.
#[inline(always)]
fn other_device<A: Access>(event: &mut DropEvent, skb: &SkBuff<A>) {
    let came_in = skb.came_in().unwrap_or(0);
    if came_in == 0 || event.fields & (field::INTERFACE | field::FROM_ROUTE) != field::INTERFACE {
        return;
    }
    if came_in != event.ifindex {
        event.other_number = came_in;
        event.fields |= field::CAME_IN;
        return;
    }
    if let Some(device) = skb.route_device()
        && let (Some(ifindex), Some(name)) = (device.ifindex(), device.name())
        && ifindex != came_in
    {
        event.other_number = ifindex;
        put(&mut event.other, name);
        event.fields |= field::TOWARDS;
    }
}

/// Walks the stack, not too often; how many frames there are.
#[inline(always)]
fn walk(
    ctx: &impl EbpfContext,
    this: This,
    scratch: *mut Scratch,
    deep: bool,
    now: u64,
) -> Option<usize> {
    // SAFETY: live map values of this CPU; the helper writes `size` bytes at most.
    let bytes = unsafe {
        // Each walk moves the mark on; who is idle has it come no closer than a burst's worth.
        let mut mark = (*this.0).walks_ns;
        if mark < now.wrapping_sub(WALK_EVERY_NS * WALK_BURST) {
            mark = now.wrapping_sub(WALK_EVERY_NS * WALK_BURST);
        }
        if mark > now {
            return None;
        }
        (*this.0).walks_ns = mark + WALK_EVERY_NS;
        let size = if deep { FRAMES * 8 } else { NEAR * 8 };
        let frames = (&raw mut (*scratch).frames).cast();
        bpf_get_stack(ctx.as_ptr(), frames, size as u32, 0)
    };
    (bytes > 0).then_some(bytes as usize / 8)
}

/// Where the function goes on that asked netfilter: the caller of the innermost frame that is
/// netfilter's entry.
#[inline(always)]
fn asker(frames: &[u64; FRAMES]) -> Option<u64> {
    let (start, size) = (config!(netfilter_start), config!(netfilter_size));
    if start == 0 {
        return None;
    }
    let (mut found, mut looking) = (0, 1);
    for index in 1..NEAR {
        let here = inside(frames[index - 1], start, size) & looking;
        looking &= !here;
        found |= frames[index] & here.wrapping_neg();
    }
    (found != 0).then_some(found)
}

/// Whether the whole stack is that of a process: softirqs run on top of whoever happens to be there.
#[inline(always)]
fn is_process(frames: &[u64; FRAMES], count: usize) -> bool {
    let (start, size) = (config!(softirq_start), config!(softirq_size));
    if start == 0 || count >= FRAMES {
        return false;
    }
    let mut softirq = 0;
    for frame in frames {
        softirq |= inside(*frame, start, size);
    }
    softirq == 0
}

/// 1 for an address of a function, 0 for any other; frames that there are not are 0. Without a jump:
/// the verifier would follow both ways of each, for each frame.
#[inline(always)]
fn inside(frame: u64, start: u64, size: u64) -> u64 {
    let offset = core::hint::black_box(frame.wrapping_sub(start));
    (!offset & offset.wrapping_sub(size)) >> 63
}
