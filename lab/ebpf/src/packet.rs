//! Headers, as far as an allow-list needs them.

use aya_ebpf::programs::TcContext;

const ETHERNET: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Which way a packet goes.
#[derive(Clone, Copy)]
pub enum Side {
    /// Towards the pod: its ingress.
    ToPod,
    /// From the pod: its egress.
    FromPod,
}

impl Side {
    /// The bit that says a pod is isolated in this direction, and the direction's byte in keys.
    pub const fn bit(self) -> u8 {
        match self {
            Self::ToPod => 1,
            Self::FromPod => 2,
        }
    }
}

/// A packet from the pod's point of view.
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// The other end; IPv4 as `::ffff:a.b.c.d`.
    pub peer: [u8; 16],
    /// The other end's port, in network order; the identifier of an echo.
    pub peer_port: [u8; 2],
    /// The pod's port, likewise.
    pub pod_port: [u8; 2],
    /// The destination's port, likewise; zero for an echo.
    pub destination_port: [u8; 2],
}

/// The packet, or `None` where policy has no say: not IP, neighbour discovery, ICMP errors, a later
/// fragment (its first one was judged), something too short to be anything.
pub fn parse(ctx: &TcContext, side: Side) -> Option<Packet> {
    let kind = u16::from_be(ctx.load::<u16>(12).ok()?);
    let mut peer = [0; 16];
    let (protocol, at) = match kind {
        ETH_P_IP => {
            let offset = match side {
                Side::ToPod => 12,
                Side::FromPod => 16,
            };
            peer[10] = 0xff;
            peer[11] = 0xff;
            let address: [u8; 4] = ctx.load(ETHERNET + offset).ok()?;
            peer[12] = address[0];
            peer[13] = address[1];
            peer[14] = address[2];
            peer[15] = address[3];
            let fragment = u16::from_be(ctx.load::<u16>(ETHERNET + 6).ok()?);
            if fragment & 0x1fff != 0 {
                return None;
            }
            let version: u8 = ctx.load(ETHERNET).ok()?;
            let protocol: u8 = ctx.load(ETHERNET + 9).ok()?;
            (protocol, ETHERNET + usize::from(version & 0xf) * 4)
        }
        ETH_P_IPV6 => {
            let offset = match side {
                Side::ToPod => 8,
                Side::FromPod => 24,
            };
            peer = ctx.load(ETHERNET + offset).ok()?;
            let protocol: u8 = ctx.load(ETHERNET + 6).ok()?;
            skip_extensions(ctx, protocol, ETHERNET + 40)?
        }
        _ => return None,
    };
    let (source, destination): ([u8; 2], [u8; 2]) = match protocol {
        TCP | UDP | SCTP => (ctx.load(at).ok()?, ctx.load(at + 2).ok()?),
        ICMP | ICMPV6 => {
            let kind: u8 = ctx.load(at).ok()?;
            // Echo requests and replies (RFC 792, RFC 4443) are the only ones policy judges.
            if !matches!((protocol, kind), (ICMP, 0 | 8) | (ICMPV6, 128 | 129)) {
                return None;
            }
            let id = ctx.load(at + 4).ok()?;
            (id, id)
        }
        _ => ([0; 2], [0; 2]),
    };
    let (peer_port, pod_port) = match side {
        Side::ToPod => (source, destination),
        Side::FromPod => (destination, source),
    };
    let has_ports = matches!(protocol, TCP | UDP | SCTP);
    Some(Packet {
        protocol,
        peer,
        peer_port,
        pod_port,
        destination_port: if has_ports { destination } else { [0; 2] },
    })
}

/// Walks hop-by-hop, routing, fragment and destination options headers (RFC 8200), at most four.
fn skip_extensions(ctx: &TcContext, mut protocol: u8, mut at: usize) -> Option<(u8, usize)> {
    for _ in 0..4 {
        let length = match protocol {
            0 | 43 | 60 => (usize::from(ctx.load::<u8>(at + 1).ok()?) + 1) * 8,
            44 => {
                let offset = u16::from_be(ctx.load::<u16>(at + 2).ok()?);
                if offset & 0xfff8 != 0 {
                    return None;
                }
                8
            }
            _ => return Some((protocol, at)),
        };
        protocol = ctx.load(at).ok()?;
        at += length;
    }
    Some((protocol, at))
}
