//! Repeats without a look at the table, see [`Streak`].
//!
//! Only who has the scratch of this CPU comes here, so a streak is one program's at a time.

use tracer_common::{FlowKey, STREAK_NS, Streak};

use crate::flows;
use crate::state::{This, count};

const WORDS: usize = size_of::<FlowKey>() / 8;

/// Whether a packet goes on with this CPU's streak; it is counted then.
#[inline(always)]
pub(crate) fn goes_on(this: This, key: &FlowKey, now: u64) -> bool {
    let streak = of(this);
    // SAFETY: the pointer is a part of a live map value of this CPU; other CPUs read it only.
    unsafe {
        if now.wrapping_sub((*streak).since_ns) >= STREAK_NS || differs(streak, key) {
            return false;
        }
        (&raw mut (*streak).packets).write_volatile((*streak).packets + 1);
        (&raw mut (*streak).last_ns).write_volatile(now);
    }
    true
}

/// A packet's flow was found in the table: it may go on now. What the last streak has counted goes into the
/// table.
#[inline(always)]
pub(crate) fn begin(this: This, key: &FlowKey, now: u64) {
    end(this);
    let streak = of(this);
    // SAFETY: as in `goes_on`; volatile, for the order that `Streak` describes. The key is copied as words:
    // bytes would be copied one by one.
    unsafe {
        let number = (*streak).begins + 1;
        (&raw mut (*streak).begins).write_volatile(number);
        let from = (&raw const *key).cast::<u64>();
        let to = (&raw mut (*streak).key).cast::<u64>();
        for word in 0..WORDS {
            to.add(word).write_volatile(from.add(word).read());
        }
        (&raw mut (*streak).since_ns).write_volatile(now);
        (&raw mut (*streak).begun).write_volatile(number);
    }
}

/// Brings what was counted into the table. It is taken away here first: for a moment it stands nowhere, and
/// never in both places. Until it is there, the streak is not whole, so that nobody takes the flow out.
#[inline(always)]
pub(crate) fn end(this: This) {
    let streak = of(this);
    // SAFETY: as in `goes_on`.
    let (packets, last_ns) = unsafe { ((*streak).packets, (*streak).last_ns) };
    if packets == 0 {
        return;
    }
    // SAFETY: as in `goes_on`; volatile, for the order.
    let (key, number) = unsafe {
        let number = (*streak).begins + 1;
        (&raw mut (*streak).begins).write_volatile(number);
        (&raw mut (*streak).packets).write_volatile(0);
        (&(*streak).key, number)
    };
    if !flows::bring(key, packets, last_ns) {
        // Taken out of the table just when it went on.
        flows::overflow(key.reason, packets);
        count!(this, overflowed, packets);
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*streak).begun).write_volatile(number) };
}

#[inline(always)]
fn of(this: This) -> *mut Streak {
    // SAFETY: a part of a live map value.
    unsafe { &raw mut (*this.0).streak }
}

/// Whether the flows are different ones.
#[inline(always)]
unsafe fn differs(streak: *const Streak, key: &FlowKey) -> bool {
    let mut differences = 0;
    // SAFETY: both are keys, aligned to words.
    unsafe {
        let ours = (&raw const (*streak).key).cast::<u64>();
        let theirs = (&raw const *key).cast::<u64>();
        for word in 0..WORDS {
            differences |= ours.add(word).read() ^ theirs.add(word).read();
        }
    }
    differences != 0
}
