//! The running kernel: what it offers, the programs loaded into it, and the records that come back.
//!
//! Everything this process needs of the kernel is said by [`probe()`]; [`Capture::start`] uses what is
//! there and says what it went without.

mod answers;
mod attach;
mod btf;
mod clock;
mod device;
mod error;
mod flows;
mod kept;
mod layout;
mod leaving;
mod load;
mod loader;
mod meter;
mod pages;
mod parts;
mod pin;
mod privilege;
mod probe;
mod reasons;
mod rulesets;
mod source;
mod streaks;
mod symbols;
mod sys;
mod table;
mod tc;

pub use attach::{Flavour, Hooks};
pub use btf::{Btf, BtfError};
pub use clock::Clock;
pub use device::DeviceNames;
pub use error::Error;
pub use load::{Capture, Options};
pub use meter::{Cost, Counters, Meter};
pub use pin::{Marks, Pin, Settled, Unpinned, unpin};
pub use privilege::give_up;
pub use probe::{Finding, HookFinding, Probe, probe};
pub use reasons::{ReasonNames, Reasons, UnknownReason};
pub use rulesets::{Rulesets, droppers};
pub use source::Handed;
pub use symbols::Symbols;
pub use tc::TcPrograms;
