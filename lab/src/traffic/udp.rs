//! Datagrams, counted.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// What became of datagrams as far as the sending socket knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSent {
    /// Handed to the kernel; every one of them was a packet.
    pub packets: u64,
    /// Of these, refused by the sender's own OUTPUT hook (`EPERM`).
    pub refused_locally: u64,
}

/// Sends exactly `packets` datagrams of `payload` from one socket. It is not connected, so that an
/// ICMP error for one does not swallow the next.
pub fn udp_send(from: &Netns, to: SocketAddr, packets: u64, payload: &[u8]) -> Result<UdpSent> {
    from.enter(|| {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
        let mut sent = UdpSent {
            packets: 0,
            refused_locally: 0,
        };
        while sent.packets < packets {
            match socket.send_to(payload, to) {
                Ok(_) => sent.packets += 1,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    sent.packets += 1;
                    sent.refused_locally += 1;
                }
                Err(error) => bail!("cannot send to {to}: {error}"),
            }
        }
        Ok(sent)
    })?
}
