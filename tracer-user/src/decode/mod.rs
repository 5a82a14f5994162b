//! Bytes from the ring buffer → [`RawDrop`]: pure and checked.

mod decoder;
mod devices;
mod inner;
mod raw;
mod story;

pub use decoder::{Answers, DecodeError, Decoder, Resolve};
pub(crate) use decoder::{PLACES, UNREASONED, UNSPECIFIED};
pub use devices::{Device, Devices};
pub use inner::{Carrier, Inner};
pub use raw::{Action, DropReason, Flow, Hook, Icmp, Location, RawDrop, TcpFlags};
pub use story::{Chain, Point, Process, Story};
