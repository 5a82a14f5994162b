//! The wire contract between tracer's eBPF programs and its user space, and the packet parser both use.
//!
//! Everything that crosses the border is `repr(C)` with fixed widths and explicit padding, holds no
//! `bool`, `Option` or enum, and has its size asserted: what one side writes is what the other reads.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a call the verifier has to follow costs more than the copy"
)]

mod carried;
mod config;
mod event;
mod flow;
pub mod handover;
mod packet;
mod state;

pub use carried::{carried, is_error, is_refusal, is_vxlan, vxlan};
pub use config::{
    ABSENT, Config, PAGES_CALL, REASON_WORDS, REASONS, feature, reason_at, reason_bit,
};
pub use event::{ABI, CAPTURE, COMM, DropEvent, IFNAME, MAGIC, RECORD, field};
pub use flow::{COARSE_NS, FlowKey, FlowValue, GLANCE, Glance, HEAD};
pub use packet::{Headers, PacketBytes, ethertype, has, parse, parse_into, protocol};
pub use state::{
    AnswerNote, AnswerNotes, CpuState, NOTE_RESET, NOTE_VALID_NS, STREAK_NS, Streak, WAKE_EVERY_NS,
    WALK_BURST, WALK_EVERY_NS,
};
