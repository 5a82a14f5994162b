//! Bytes from the ring buffer → [`RawDrop`]: pure and checked.

mod decoder;
mod raw;

pub use decoder::{DecodeError, Decoder, Resolve};
pub use raw::{Action, DropReason, Flow, Hook, Icmp, Location, RawDrop, TcpFlags};
