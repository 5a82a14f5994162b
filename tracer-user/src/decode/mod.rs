//! Bytes from the ring buffer → [`RawDrop`]: pure and checked.

mod raw;

pub use raw::{Action, DropReason, Flow, Hook, Icmp, Location, RawDrop, TcpFlags};
