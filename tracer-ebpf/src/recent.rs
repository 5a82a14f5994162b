//! Which flows may be in a full table: a look here, in memory that stays in the cache, saves most packets of a
//! flood of new flows the look there.
//!
//! A flow that is found in the table leaves the time in a slot that it shares with others. Where that is long
//! ago, its packet counts by the reason alone; user space takes out of a full table what is silent for less.

use core::ptr::addr_of;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::FlowKey;

/// Elements of arrays are of eight bytes at least.
const SLOTS: usize = 8;

/// User space sets the size, to a power of two.
#[map]
static RECENT: Array<[u8; SLOTS]> = Array::with_max_entries(16_384, 0);

/// How many elements [`RECENT`] has.
#[unsafe(no_mangle)]
static RECENT_SIZE: Global<u32> = Global::new(16_384);

/// Units of time, of 2^30 ns, that a flow is remembered: thrice as long as user space lets one be silent in a full
/// table.
const KEPT: u8 = 16;

/// A flow's slot, by the digest of its key.
#[derive(Clone, Copy)]
pub(crate) struct Recent(u32);

impl Recent {
    #[inline(always)]
    pub(crate) fn of(key: &FlowKey) -> Self {
        Self(key.digest())
    }

    /// Whether a flow of this slot was in the table lately.
    #[inline(always)]
    pub(crate) fn is_there(self, now: u64) -> bool {
        let Some(slot) = self.slot() else {
            return true;
        };
        // SAFETY: a part of a live map value. CPUs share it; whatever one of them wrote is right enough.
        let then = unsafe { slot.read_volatile() };
        unit(now).wrapping_sub(then) <= KEPT
    }

    /// Asks for the slot's memory, and does not wait for it.
    #[inline(always)]
    pub(crate) fn fetch(self) {
        if let Some(slot) = self.slot() {
            // SAFETY: as in `is_there`.
            unsafe { slot.read_volatile() };
        }
    }

    /// The flow is in the table. What says so already is not written: other CPUs have it in their caches.
    #[inline(always)]
    pub(crate) fn renew(self, now: u64) {
        let Some(slot) = self.slot() else {
            return;
        };
        // SAFETY: as in `is_there`.
        unsafe {
            if slot.read_volatile() != unit(now) {
                slot.write_volatile(unit(now));
            }
        }
    }

    #[inline(always)]
    fn slot(self) -> Option<*mut u8> {
        // SAFETY: `Global` is transparent; volatile, because the loader overwrites it.
        let size = unsafe { addr_of!(RECENT_SIZE).cast::<u32>().read_volatile() };
        let element = RECENT.get_ptr_mut(self.0 & size.wrapping_sub(1))?;
        let slot = self.0 >> (u32::BITS - SLOTS.trailing_zeros());
        // SAFETY: so many bits are less than the slots of an element.
        Some(unsafe { element.cast::<u8>().add(slot as usize) })
    }
}

#[inline(always)]
fn unit(now: u64) -> u8 {
    (now >> 30) as u8
}
