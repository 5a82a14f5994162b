//! tracer's eBPF programs: one at `kfree_skb`, one at `icmp:icmp_send`, each in the two flavours a
//! kernel may offer, of which user space loads one; and those that hear of other answers to senders
//! ([`answers`]).
//!
//! The way of a drop: is its reason of interest ([`config`]), and is it ours ([`handover`]) → what was
//! it ([`skb`]) → is its flow known ([`flows`]) → if not, into the ring ([`ring`]); whatever is left out
//! on the way is counted ([`state`]).
#![no_std]
#![no_main]
// The target has no compare-and-swap on old kernels, so `core` gives its atomics no `fetch_add`, which
// all kernels have. The build allows unstable features to this crate alone, for `build-std`.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "see above")]
#![expect(
    missing_docs,
    reason = "the program macros lose the doc comments of what they wrap"
)]
#![expect(
    clippy::inline_always,
    reason = "one function a program: older verifiers follow calls badly"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "on this one 64-bit target they do not; a checked conversion is a branch to verify"
)]
#![expect(
    clippy::cast_ptr_alignment,
    reason = "each such cast says where the alignment comes from"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the program macros want it so"
)]

mod answers;
mod clock;
mod config;
mod drops;
mod flows;
mod handover;
mod pages;
mod recent;
mod ring;
mod skb;
mod state;
mod story;
mod streak;

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};

use skb::{Copied, Typed};
use tracer_common::protocol;

/// A packet was dropped.
///
/// ```text
/// match-proto:v5.10:include/trace/events/skb.h:(struct sk_buff *skb, void *location)
/// match-proto:v5.17:(struct sk_buff *skb, void *location, enum skb_drop_reason reason)
/// match-proto:v6.11:(..., struct sock *rx_sk)
/// ```
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb_btf(ctx: BtfTracePointContext) -> i32 {
    let reason = if config::has_reason() { ctx.arg(2) } else { 0 };
    drops::on_drop::<Typed>(&ctx, ctx.arg(0), ctx.arg(1), reason);
    0
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if config::has_reason() { ctx.arg(2) } else { 0 };
    drops::on_drop::<Copied>(&ctx, ctx.arg(0), ctx.arg(1), reason);
    0
}

/// An ICMP error is about to be sent for a packet.
///
/// ```text
/// match-proto:v6.11:include/trace/events/icmp.h:(const struct sk_buff *skb, int type, int code)
/// ```
#[btf_tracepoint(function = "icmp_send")]
pub fn icmp_send_btf(ctx: BtfTracePointContext) -> i32 {
    drops::on_icmp_send(protocol::ICMP, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "icmp_send")]
pub fn icmp_send_raw(ctx: RawTracePointContext) -> i32 {
    drops::on_icmp_send(protocol::ICMP, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// What the kernel asks of programs that call GPL-only helpers, `bpf_probe_read_kernel` among them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier would refuse a program that can get here.
    loop {}
}
