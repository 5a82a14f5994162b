//! One dropped packet as it crosses from the kernel program to user space.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::Headers;

/// First word of every record (`"drop"` in ASCII, read as little-endian).
pub const MAGIC: u32 = u32::from_le_bytes(*b"drop");

/// Version of all layouts of this crate; goes up with every change of any of them.
pub const ABI: u16 = 6;

/// Bytes of a packet that a record has room for.
pub const CAPTURE: usize = 128;

/// Length of an interface name with its NUL.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if.h#L33>
pub const IFNAME: usize = 16;

/// Length of a command's name with its NUL (`TASK_COMM_LEN`).
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/sched.h#L325>
pub const COMM: usize = 16;

/// Which optional parts of a [`DropEvent`] hold something: bits of [`DropEvent::fields`].
pub mod field {
    /// `ifindex` and `ifname`.
    pub const INTERFACE: u32 = 1 << 0;
    /// `netns`.
    pub const NETNS: u32 = 1 << 1;
    /// `headers`.
    pub const HEADERS: u32 = 1 << 2;
    /// `reply_type` and `reply_code`: the kernel answered the sender with this ICMP message.
    pub const ICMP_REPLY: u32 = 1 << 3;
    /// `reason`: the kernel tells reasons (since 5.17).
    pub const REASON: u32 = 1 << 4;
    /// The interface is where the packet was to leave by its route: it was not at any device yet.
    pub const FROM_ROUTE: u32 = 1 << 5;
    /// `caller`.
    pub const CALLER: u32 = 1 << 6;
    /// `original` and `original_port`: the packet was sent to another destination.
    pub const ORIGINAL: u32 = 1 << 7;
    /// `other_number` and `other` are a process's: who sent the packet from this machine.
    pub const PROCESS: u32 = 1 << 8;
    /// The kernel answered the sender with a TCP reset.
    pub const TCP_RESET: u32 = 1 << 9;
    /// Connection tracking knows the packet, or was told to leave it alone.
    pub const TRACKED: u32 = 1 << 10;
    /// It does not: it has called the packet invalid, or has not seen it.
    pub const UNTRACKED: u32 = 1 << 11;
    /// An answer to the sender may have been missed: user space was at the tables, and meanwhile the kernel runs
    /// no kprobe's program on that CPU.
    pub const DEAF: u32 = 1 << 12;
    /// `other_number` and `other` are a device's: the packet is still where it came in, and its route leads there.
    pub const TOWARDS: u32 = 1 << 13;
    /// `other_number` is a device's: the packet came in there, and is at another.
    pub const CAME_IN: u32 = 1 << 14;
    /// `packet` is the first packet of the flow, which was told before: user space keeps it where it carries another.
    pub const REMEMBERED: u32 = 1 << 15;
    /// The packet came while its flow was being taken out of the table, and begins another: the number of that
    /// taking, from 1 on.
    pub const ANEW: u32 = 0xf << ANEW_SHIFT;
    /// Where [`ANEW`] begins.
    pub const ANEW_SHIFT: u32 = 16;
}

/// One dropped packet, or, where `count` is above 1, that many of one flow.
///
/// Numbers are in host byte order; addresses are as they were on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DropEvent {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`ABI`].
    pub abi: u16,
    /// Size of the record in bytes.
    pub size: u16,
    /// `bpf_ktime_get_ns`: nanoseconds of `CLOCK_MONOTONIC`.
    pub ktime_ns: u64,
    /// Packets this record stands for.
    pub count: u64,
    /// Address of the instruction after the call that freed the packet.
    pub location: u64,
    /// `enum skb_drop_reason` of the running kernel.
    pub reason: u32,
    /// Bits of [`field`].
    pub fields: u32,
    /// Interface index in its network namespace.
    pub ifindex: u32,
    /// Network namespace (inode number).
    pub netns: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// Bytes from the network header to the packet's end.
    pub length: u32,
    /// How much of `packet` is filled.
    pub captured: u16,
    /// `skb->protocol`.
    pub ethertype: u16,
    /// ICMP type of the answer to the sender.
    pub reply_type: u8,
    /// ICMP code of the answer to the sender.
    pub reply_code: u8,
    /// Zero.
    pub reserved: u16,
    /// What the packet carries, see [`crate::carried()`]; 0 for nothing.
    pub carried: u32,
    /// What the packet's headers say.
    pub headers: Headers,
    /// Interface name, filled up with NUL.
    pub ifname: [u8; IFNAME],
    /// Where the function goes on that asked netfilter about the packet.
    pub caller: u64,
    /// The destination before it was translated (DNAT); IPv4 in the first four bytes.
    pub original: [u8; 16],
    /// A name filled up with NUL: by `fields`, a command's (`comm`) or a device's.
    pub other: [u8; COMM],
    /// What goes with it: a process (thread group), or an interface index.
    pub other_number: u32,
    /// Port before it was translated.
    pub original_port: u16,
    /// Zero.
    pub reserved_last: u16,
    /// The packet from its network header on.
    pub packet: [u8; CAPTURE],
}

/// Size of a [`DropEvent`] in bytes.
#[expect(clippy::cast_possible_truncation, reason = "asserted below")]
pub const RECORD: u16 = size_of::<DropEvent>() as u16;

const _: () = assert!(size_of::<DropEvent>() == 304 && align_of::<DropEvent>() == 8);
const _: () = assert!(core::mem::offset_of!(DropEvent, packet).is_multiple_of(8));
