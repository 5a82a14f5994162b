//! What else answers the sender of a packet that is then dropped: kernel functions that run on rejects only.

use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;

use tracer_common::protocol;

use crate::drops::{on_icmp_send, on_reset};

/// An ICMP error, on kernels without the tracepoint.
///
/// ```text
/// match-proto:v5.10:include/net/icmp.h:void __icmp_send(struct sk_buff *skb_in, int type, int code, ...)
/// ```
#[kprobe]
pub fn icmp_send_probe(ctx: ProbeContext) -> u32 {
    icmp(&ctx, protocol::ICMP)
}

/// An `ICMPv6` error.
///
/// ```text
/// match-proto:v5.10:include/linux/icmpv6.h:void icmp6_send(struct sk_buff *skb, u8 type, u8 code, ...)
/// ```
#[kprobe]
pub fn icmp6_send_probe(ctx: ProbeContext) -> u32 {
    icmp(&ctx, protocol::ICMPV6)
}

/// A TCP reset.
///
/// ```text
/// match-proto:v5.10:include/net/netfilter/ipv4/nf_reject.h:(struct net *, struct sk_buff *oldskb, int hook)
/// match-proto:v5.11:(struct net *, struct sock *, struct sk_buff *oldskb, int hook)
/// ```
#[kprobe]
pub fn reset_probe(ctx: ProbeContext) -> u32 {
    reset(&ctx)
}

/// The same over IPv6, with the same arguments.
#[kprobe]
pub fn reset6_probe(ctx: ProbeContext) -> u32 {
    reset(&ctx)
}

#[inline(always)]
fn icmp(ctx: &ProbeContext, protocol: u8) -> u32 {
    if let (Some(skb), Some(kind), Some(code)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        on_icmp_send(protocol, skb, kind, code);
    }
    0
}

#[inline(always)]
fn reset(ctx: &ProbeContext) -> u32 {
    if let (Some(second), Some(third)) = (ctx.arg::<u64>(1), ctx.arg::<u64>(2)) {
        // Addresses of the kernel's have the highest bit set; a hook's number has not.
        on_reset(if third >> 63 == 1 { third } else { second });
    }
    0
}
