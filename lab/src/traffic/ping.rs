//! ICMP echo through the kernel's ping sockets (`icmp(7)`), which fill in identifier and checksum.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use crate::netns::Netns;

/// What came of echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub received: u64,
}

/// Sends exactly `count` echo requests, waiting up to `timeout` for each one's reply.
pub fn ping(from: &Netns, to: IpAddr, count: u16, timeout: Duration) -> Result<Ping> {
    from.enter(|| {
        let (family, protocol, request, reply) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
        };
        let socket = socket_with(
            family,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )
        .context("cannot make a ping socket")?;
        set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;

        let mut result = Ping {
            sent: 0,
            received: 0,
        };
        for sequence in 1..=count {
            let [high, low] = sequence.to_be_bytes();
            let mut packet = [0; 16];
            packet[0] = request;
            (packet[6], packet[7]) = (high, low);
            match sendto(
                &socket,
                &packet,
                SendFlags::empty(),
                &SocketAddr::new(to, 0),
            ) {
                // EPERM: the sender's own OUTPUT hook dropped it.
                Ok(_) | Err(Errno::PERM) => result.sent += 1,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot send to {to}"));
                }
            }
            let deadline = Instant::now() + timeout;
            let mut answer = [0; 64];
            while Instant::now() < deadline {
                match recv(&socket, &mut answer, RecvFlags::empty()) {
                    Ok((length, _))
                        if length >= 8
                            && answer[0] == reply
                            && answer[6..8] == sequence.to_be_bytes() =>
                    {
                        result.received += 1;
                        break;
                    }
                    // A late reply to an earlier one.
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        Ok(result)
    })?
}
