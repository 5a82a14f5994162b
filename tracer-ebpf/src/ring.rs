//! The way to user space, with as few wake-ups as may be: they cost ten times what the programs do.
//!
//! The reader drains the ring on a timer while there is something in it and sleeps only when it has
//! been empty for longer than [`WAKE_EVERY_NS`]. So only the first record after such a while has to
//! wake it, and one that finds the ring filling up.

use core::cell::UnsafeCell;

use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use tracer_common::{DropEvent, WAKE_EVERY_NS};

use crate::config::config;

/// User space sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h> (`BPF_RB_*`)
const NO_WAKEUP: u64 = 1 << 0;
const FORCE_WAKEUP: u64 = 1 << 1;
const AVAIL_DATA: u64 = 0;

/// A record with the ring's own header.
const RECORD: u64 = size_of::<DropEvent>() as u64 + 8;

/// When the reader was woken last. CPUs race for it, which at worst wakes it once more than needed.
#[repr(transparent)]
struct LastWake(UnsafeCell<u64>);

// SAFETY: read and written whole, with volatile accesses of one machine word.
unsafe impl Sync for LastWake {}

static LAST_WAKE: LastWake = LastWake(UnsafeCell::new(0));

/// Room for one record, or `None` where the ring is full.
#[inline(always)]
pub(crate) fn reserve() -> Option<RingBufEntry<DropEvent>> {
    EVENTS.reserve::<DropEvent>(0)
}

/// Hands a filled-in record to user space.
#[inline(always)]
pub(crate) fn submit(entry: RingBufEntry<DropEvent>, now: u64) {
    entry.submit(if wake(now) { FORCE_WAKEUP } else { NO_WAKEUP });
}

#[inline(always)]
fn wake(now: u64) -> bool {
    let last = LAST_WAKE.0.get();
    // SAFETY: the pointer is the static's, and see `LastWake`. A CPU's clock may be read just before
    // another's that has set the mark: hence signed.
    unsafe {
        if now.wrapping_sub(last.read_volatile()).cast_signed() > WAKE_EVERY_NS.cast_signed() {
            last.write_volatile(now);
            return true;
        }
    }
    // This record, already reserved, is the one that crosses the mark.
    let waiting = EVENTS.query(AVAIL_DATA);
    let mark = u64::from(config!(wake_bytes));
    waiting >= mark && waiting < mark + RECORD
}
