//! Packets whose headers are not in the piece of memory that begins with them, as some drivers leave them: only
//! their link layer's header is there, the rest in pages. A packet socket's ring makes such ones.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use tracer::decode::Hook;
use tracer::kernel::{Capture, Counters, Flavour, Options};
use tracer_policy::model::Protocol;

use crate::folded;
use crate::stage::{PACKETS, Rule, capture, packets, possible};

/// One frame is one page.
const FRAME: usize = 4096;

/// A packet socket with a ring to send from.
struct Ring {
    socket: OwnedFd,
    /// As long as [`FRAME`].
    frame: *mut libc::c_void,
}

impl Ring {
    fn open() -> io::Result<Self> {
        // SAFETY: the descriptor is new, and nobody else's.
        #[expect(unsafe_code, reason = "a packet socket")]
        let socket = unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if socket < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(socket)
        };
        let size = libc::c_uint::try_from(FRAME).map_err(io::Error::other)?;
        let ring = libc::tpacket_req {
            tp_block_size: size,
            tp_block_nr: 1,
            tp_frame_size: size,
            tp_frame_nr: 1,
        };
        // SAFETY: the option is of this type; the mapping is as long as the ring, and shared with the kernel.
        #[expect(unsafe_code, reason = "a packet socket's ring")]
        let frame = unsafe {
            let set = libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_TX_RING,
                (&raw const ring).cast(),
                size_of_val(&ring).try_into().map_err(io::Error::other)?,
            );
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                ptr::null_mut(),
                FRAME,
                access,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if frame == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, frame })
    }

    /// Sends a frame of this ethertype out of the loopback device.
    fn send(&self, ethertype: u16, frame: &[u8]) -> io::Result<()> {
        // `TPACKET_HDRLEN` less the address that follows the header.
        const DATA: usize = size_of::<libc::tpacket_hdr>().next_multiple_of(16);
        assert!(DATA + frame.len() <= FRAME);
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET.try_into().map_err(io::Error::other)?,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: 1,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: all within the mapping, which begins with a header; the kernel does not look at the frame before
        // it is told to, and is done with it when the call returns.
        #[expect(unsafe_code, reason = "a packet socket's ring")]
        unsafe {
            let header = self.frame.cast::<libc::tpacket_hdr>();
            let data = self.frame.cast::<u8>().add(DATA);
            ptr::copy_nonoverlapping(frame.as_ptr(), data, frame.len());
            let length = frame.len().try_into().map_err(io::Error::other)?;
            (&raw mut (*header).tp_len).write_volatile(length);
            (&raw mut (*header).tp_snaplen).write_volatile(length);
            let status = libc::TP_STATUS_SEND_REQUEST.into();
            (&raw mut (*header).tp_status).write_volatile(status);
            let sent = libc::sendto(
                self.socket.as_raw_fd(),
                ptr::null(),
                0,
                0,
                (&raw const to).cast(),
                size_of_val(&to).try_into().map_err(io::Error::other)?,
            );
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own.
        #[expect(unsafe_code, reason = "a packet socket's ring")]
        unsafe {
            libc::munmap(self.frame, FRAME);
        }
    }
}

/// A datagram from 127.0.0.1:40000 to :4444, from the link layer's header on.
fn datagram() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    let sum: u32 = ip
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    ip[10..12].copy_from_slice(&sum.to_be_bytes()[2..]);
    frame.extend(ip);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(4444_u16.to_be_bytes());
    // No checksum.
    frame.extend([0, 20, 0, 0]);
    frame.extend(b"twelve bytes");
    frame
}

#[test]
fn headers_in_pages_are_read_where_the_kernel_has_a_reader_for_them() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    // At the device nothing has touched the packet yet; later its IP header has been pulled out of the page.
    for (table, hook) in [("netdev t", "ingress device lo"), ("inet t", "prerouting")] {
        for flavour in [Flavour::Btf, Flavour::Raw] {
            dropped(table, hook, flavour);
        }
    }
}

fn dropped(table: &'static str, hook: &'static str, flavour: Flavour) {
    let options = Options {
        flavour: Some(flavour),
        ..Options::default()
    };
    let reads = Capture::start(&options)
        .expect("a capture")
        .hooks()
        .reads_pages;
    assert!(!reads || flavour == Flavour::Btf);
    let work = move || {
        let rule = Rule::install_in(table, hook, "ip protocol udp", "drop");
        let ring = Ring::open().expect("a ring");
        for _ in 0..PACKETS {
            ring.send(0x0800, &datagram()).expect("it is sent");
        }
        rule.until(PACKETS.into())
    };
    let (drops, counters, met) = capture(&options, work, packets(PACKETS.into()));
    let what = format!("{hook} {flavour:?}: {counters:?} {drops:#?}");
    assert_eq!(met, u64::from(PACKETS), "{what}");
    let counted: u64 = drops.iter().map(|drop| drop.count).sum();
    assert_eq!(counted, u64::from(PACKETS), "{what}");
    for drop in &drops {
        assert_eq!(drop.hook, Some(Hook::Netfilter), "{what}");
        assert_eq!(drop.length, 40, "{what}");
    }
    if !reads {
        // What cannot be read is not made up.
        let ports =
            |drop: &tracer::decode::RawDrop| drop.flow.and_then(|flow| flow.destination_port);
        assert!(drops.iter().all(|drop| ports(drop).is_none()), "{what}");
        return;
    }
    assert_eq!(folded(&drops), u64::from(PACKETS), "{what}");
    assert!(drops[0].packet.ends_with(b"twelve bytes"), "{what}");
    assert_eq!(drops[0].packet.len(), 40, "{what}");
    for drop in &drops {
        let flow = drop.flow.expect("a flow");
        assert_eq!(flow.source, Ipv4Addr::LOCALHOST, "{what}");
        assert_eq!(flow.protocol, Protocol::Udp, "{what}");
        assert_eq!(flow.source_port, Some(40_000), "{what}");
        assert_eq!(flow.destination_port, Some(4444), "{what}");
    }
}

/// Kernels without reasons free them where tc drops, too.
#[test]
fn what_nobody_understands_is_nobodys_policy() {
    const LLDP: u16 = 0x88cc;
    if !possible(&["ip"]) {
        return;
    }
    let work = || {
        let ring = Ring::open().expect("a ring");
        let frame = [&[0; 12][..], &LLDP.to_be_bytes(), &[0; 46]].concat();
        for _ in 0..PACKETS {
            ring.send(LLDP, &frame).expect("it is sent");
        }
    };
    let ignored = |_: &[_], counters: Counters| counters.ignored >= PACKETS.into();
    let (drops, counters, ()) = capture(&Options::default(), work, ignored);
    assert_eq!(drops, [], "{counters:?}");
    assert!(counters.ignored >= PACKETS.into(), "{counters:?}");
}
