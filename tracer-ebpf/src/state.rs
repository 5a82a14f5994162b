//! What a CPU keeps to itself: counters, the last reject's note, and room to work in.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use tracer_common::{
    AnswerNote, CAPTURE, CpuState, DropEvent, FlowKey, FlowValue, Glance, NOTE_VALID_NS,
};

use crate::clock;

/// Read by user space.
#[map]
static STATE: PerCpuArray<CpuState> = PerCpuArray::with_max_entries(1, 0);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Largest `struct sk_buff` there is room for (Linux 6.18: 224 to 256 bytes).
pub(crate) const SKB_MAX: usize = 256;

/// Room for copies of kernel memory: more than the stack can spare, and, unlike the stack before
/// Linux 5.12, open to reads at computed offsets.
#[repr(C, align(8))]
pub(crate) struct Scratch {
    /// The `sk_buff`.
    pub(crate) skb: [u8; SKB_MAX],
    /// The packet's very first bytes, for its key.
    pub(crate) glance: Glance,
    /// The packet's first bytes.
    pub(crate) packet: [u8; CAPTURE],
    /// How many.
    pub(crate) captured: u64,
    /// The record that is made.
    pub(crate) event: DropEvent,
    /// Its flow.
    pub(crate) key: FlowKey,
    /// What is kept of that.
    pub(crate) value: FlowValue,
    /// The timer's tick when the clock was read last, and what it said.
    pub(crate) tick: u64,
    pub(crate) tick_ns: u64,
    /// `tick_ns` when the table of flows was seen full last.
    pub(crate) full_ns: u64,
    /// Return addresses on the stack, innermost first.
    pub(crate) frames: [u64; FRAMES],
}

/// Return addresses there is room for.
pub(crate) const FRAMES: usize = 48;

/// State of the CPU the program runs on.
#[inline(always)]
pub(crate) fn this_cpu() -> Option<This> {
    STATE.get_ptr_mut(0).map(This)
}

/// Adds 1, or what is said, to a counter of this CPU.
macro_rules! count {
    ($this:expr, $counter:ident) => {
        count!($this, $counter, 1)
    };
    ($this:expr, $counter:ident, $packets:expr) => {{
        let state = $this.0;
        // SAFETY: the pointer is a live map value of this CPU, checked by the verifier.
        unsafe { (*state).$counter = (*state).$counter.wrapping_add($packets) }
    }};
}
pub(crate) use count;

/// This CPU's state. A raw pointer, because on kernels before 6.2 an interrupt's drop may run the
/// program again, on the same CPU, in the middle of this one.
#[derive(Clone, Copy)]
pub(crate) struct This(pub(crate) *mut CpuState);

impl This {
    /// Takes the scratch room for one drop, or `None` where an outer drop has it.
    #[inline(always)]
    pub(crate) fn enter(self) -> Option<*mut Scratch> {
        // SAFETY: see `count`; volatile, so that the mark is set before and taken away after the work.
        unsafe {
            let busy = &raw mut (*self.0).busy;
            if busy.read_volatile() != 0 {
                return None;
            }
            let scratch = SCRATCH.get_ptr_mut(0)?;
            busy.write_volatile(1);
            Some(scratch)
        }
    }

    /// Gives it back.
    #[inline(always)]
    pub(crate) fn leave(self) {
        // SAFETY: as in `enter`.
        unsafe { (&raw mut (*self.0).busy).write_volatile(0) }
    }

    /// Remembers that a packet's sender is being told.
    #[inline(always)]
    pub(crate) fn note(self, skb: u64, ktime_ns: u64, reply: u32) {
        // SAFETY: see `count`.
        unsafe {
            let notes = &mut (*self.0).notes;
            notes.add(AnswerNote {
                skb,
                ktime_ns,
                reply,
                reserved: 0,
            });
        }
    }

    /// Takes away the note for this packet, if one of the last was for it.
    ///
    /// Also for drops nobody asked for: the memory of a packet is soon another packet's.
    #[inline(always)]
    pub(crate) fn take_note(self, skb: u64) -> Note {
        // SAFETY: see `count`.
        let notes = unsafe { &mut (*self.0).notes };
        match notes.take(skb) {
            Some(note) => Note {
                ktime_ns: note.ktime_ns,
                reply: note.reply,
            },
            None => Note {
                ktime_ns: 0,
                reply: 0,
            },
        }
    }
}

/// What the sender of a packet was told, and when; all 0 where nothing was. No `Option`: the compiler leaves
/// the fields of a `None` undefined, and older verifiers see it copy them.
#[derive(Clone, Copy)]
pub(crate) struct Note {
    ktime_ns: u64,
    reply: u32,
}

impl Note {
    /// [`AnswerNote::reply`], if there is a note, fresh enough to be about the packet that is being dropped.
    #[inline(always)]
    pub(crate) fn reply(self) -> Option<u32> {
        if self.ktime_ns == 0 {
            return None;
        }
        (clock::now().wrapping_sub(self.ktime_ns) < NOTE_VALID_NS).then_some(self.reply)
    }
}
