//! How programs hand over to newer ones while packets are dropped: each packet is counted by one of them.
//!
//! Both run for each drop, the older ones first, as they were attached first. The order of steps is in
//! `tracer-user/src/kernel/pin/handover.rs`. All versions of tracer must agree on these numbers, and on
//! the maps `MODE` (a `u32` at [`MODE`]) and `CLAIMS` (two `u64` a CPU, the last claim first; of which earlier ones
//! knew the first).

/// Where in `MODE` what follows stands.
pub const MODE: u32 = 0;
/// Where in `MODE` it says whether user space is at the tables: not 0 then.
pub const AT_TABLES: u32 = 1;
/// Where in `MODE` it says whether the programs read packets' pages: not 0 then. Of no matter to a handover; it is
/// here for who finds the programs pinned.
pub const PAGES: u32 = 2;
/// Where in `MODE` it says that flows are being taken out of the table: those without packets for so many
/// milliseconds, or 0 for none, and above [`SILENT_BITS`] the number of the taking. Nothing is added to them
/// meanwhile. Not in programs of earlier versions.
pub const LEAVING: u32 = 3;
/// Bits of the milliseconds in [`LEAVING`]: more than three days.
pub const SILENT_BITS: u32 = 28;
/// The most milliseconds they hold.
pub const MOST_SILENT: u32 = (1 << SILENT_BITS) - 1;
/// After this number takings are numbered from 1 again.
pub const LAST_TAKING: u32 = (1 << (u32::BITS - SILENT_BITS)) - 1;

/// Counts every packet.
pub const COUNT: u32 = 0;
/// Counts none: the older programs do.
pub const WAIT: u32 = 1;
/// Counts every packet, and lays claim to it.
pub const CLAIM: u32 = 2;
/// Counts what the older programs have not laid claim to.
pub const TAKE_OVER: u32 = 3;
/// Counts none: the newer programs do.
pub const RETIRED: u32 = 4;
