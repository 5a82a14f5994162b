//! Datagrams as fast as one thread can send them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;

/// Messages of one system call.
const BATCH: usize = 256;

/// When a flood ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After exactly so many packets.
    Packets(u64),
    /// After this time, and the batch that is then under way.
    Elapsed(Duration),
}

/// What a flood was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded {
    /// Handed to the kernel; each was a packet, dropped by the sender's own kernel or not.
    pub packets: u64,
    /// From the first to the last.
    pub took: Duration,
}

impl Flooded {
    /// Packets a second.
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate, to a few digits")]
        let packets = self.packets as f64;
        packets / self.took.as_secs_f64()
    }
}

/// Sends datagrams of one byte from one socket to each destination in turn, over and over.
///
/// Where a rule of the sender's own kernel drops them, each takes a system call by itself.
pub fn udp_flood(from: &Netns, to: &[SocketAddrV4], until: Until) -> Result<Flooded> {
    ensure!(!to.is_empty(), "a flood needs a destination");
    from.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no UDP socket")?;
        let mut messages = Messages::new(to);
        let start = Instant::now();
        let mut packets = 0;
        loop {
            let most = match until {
                Until::Packets(wanted) => wanted - packets,
                Until::Elapsed(time) if start.elapsed() >= time => 0,
                Until::Elapsed(_) => u64::MAX,
            };
            if most == 0 {
                let took = start.elapsed();
                return Ok(Flooded { packets, took });
            }
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            packets += messages.send(&socket, most)? as u64;
        }
    })?
}

/// What `sendmmsg` is given, made once: each header points into the other three.
struct Messages {
    headers: Vec<libc::mmsghdr>,
    next: usize,
    _addresses: Vec<libc::sockaddr_in>,
    _parts: Box<[libc::iovec; 1]>,
    _payload: Box<[u8; 1]>,
}

impl Messages {
    fn new(to: &[SocketAddrV4]) -> Self {
        let mut payload = Box::new([b'x']);
        let mut parts = Box::new([libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len(),
        }]);
        // Few destinations are written out until they fill a batch.
        let rounds = BATCH.div_ceil(to.len());
        let mut addresses: Vec<_> = std::iter::repeat_n(to, rounds)
            .flatten()
            .map(|to| libc::sockaddr_in {
                sin_family: 2,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(to.ip().octets()),
                },
                sin_zero: [0; 8],
            })
            .collect();
        let headers = addresses
            .iter_mut()
            .map(|address| libc::mmsghdr {
                msg_hdr: libc::msghdr {
                    msg_name: (&raw mut *address).cast(),
                    msg_namelen: 16,
                    msg_iov: parts.as_mut_ptr(),
                    msg_iovlen: 1,
                    msg_control: std::ptr::null_mut(),
                    msg_controllen: 0,
                    msg_flags: 0,
                },
                msg_len: 0,
            })
            .collect();
        Self {
            headers,
            next: 0,
            _addresses: addresses,
            _parts: parts,
            _payload: payload,
        }
    }

    /// Sends the next batch, at most `most`; returns how many became packets.
    fn send(&mut self, socket: &UdpSocket, most: usize) -> Result<usize> {
        let end = self.headers.len().min(self.next + BATCH.min(most));
        let batch = &mut self.headers[self.next..end];
        let length = u32::try_from(batch.len()).context("a batch is short")?;
        // SAFETY: the headers, and the addresses and the payload they point to, live in `self`, which
        // neither moves them nor lends them to anyone else; the kernel keeps none of it.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), length, 0) };
        let sent = match usize::try_from(sent) {
            Ok(sent) => sent,
            Err(_) => dropped_here().context("cannot send")?,
        };
        self.next = (self.next + sent) % self.headers.len();
        Ok(sent)
    }
}

/// How many packets a call that failed has made: one, where the kernel dropped it on its way out.
fn dropped_here() -> std::io::Result<usize> {
    match std::io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EPERM) => Ok(1),
        error => Err(error),
    }
}
