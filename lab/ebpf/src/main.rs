//! An allow-list in front of each pod, at the node's end of its cable: Calico-eBPF's shape, with its
//! naming trap. A policy's *ingress* is judged at tc *egress* (towards the pod), its *egress* at tc
//! *ingress* (from the pod).
//!
//! Whatever is denied ends with `TC_ACT_SHOT`, the node's own packets to its pods included.
#![no_std]
#![no_main]

mod floor;
mod maps;
mod packet;

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use packet::Side;

/// Towards the pod; attached at tc egress.
#[classifier]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the macro hands the context over"
)]
fn lab_to_pod(ctx: TcContext) -> i32 {
    judge(&ctx, Side::ToPod)
}

/// From the pod; attached at tc ingress.
#[classifier]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the macro hands the context over"
)]
fn lab_from_pod(ctx: TcContext) -> i32 {
    judge(&ctx, Side::FromPod)
}

fn judge(ctx: &TcContext, side: Side) -> i32 {
    // SAFETY: the context of a tc program holds a valid `__sk_buff` while the program runs.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    let isolated = maps::isolated(interface);
    if isolated == 0 {
        return TC_ACT_OK;
    }
    // What is not IP, or carries IP's own errors, is never policy's.
    let Some(packet) = packet::parse(ctx, side) else {
        return TC_ACT_OK;
    };
    if maps::known_flow(interface, &packet) {
        return TC_ACT_OK;
    }
    if isolated & side.bit() != 0 && !maps::allowed(interface, side, &packet) {
        maps::count_drop(side);
        return TC_ACT_SHOT;
    }
    // Its replies pass from now on.
    maps::remember_flow(interface, &packet);
    TC_ACT_OK
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
