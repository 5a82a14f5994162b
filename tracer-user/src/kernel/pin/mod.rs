//! Programs, maps and links that stay in the kernel when the agent ends, for the next one to go on with.
//!
//! `ROOT/AGENT/CREATED-vABI-FINGERPRINT/`: an agent has a folder of its own, by what its user calls it;
//! in it are generations of programs, mostly one. One with the right fingerprint is adopted as it is; an
//! older one hands over to a new one ([`handover`]) and is emptied.
//!
//! Names have no dots: the kernel's bpffs refuses them.

mod folder;
mod handover;
mod marks;

pub(super) use folder::{Generation, Home, remove, try_remove};
pub use folder::{Pin, Unpinned, unpin};
pub(super) use handover::{all_have_seen, hand_over, wait_for_older};
pub(super) use marks::{MarkSet, Told};
pub use marks::{Marks, Settled};
