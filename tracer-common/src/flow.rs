//! The table of flows: the first packet of a flow goes to user space, the others are only counted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{DropEvent, field};
use crate::packet::{Headers, has};

/// Bytes of a [`DropEvent`] before its packet.
pub const HEAD: usize = core::mem::offset_of!(DropEvent, packet);

/// What packets of a flow have in common; the source port is left out.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FlowKey {
    /// [`Headers::source`].
    pub source: [u8; 16],
    /// [`Headers::destination`].
    pub destination: [u8; 16],
    /// [`DropEvent::location`].
    pub location: u64,
    /// [`DropEvent::reason`].
    pub reason: u32,
    /// [`DropEvent::ifindex`].
    pub ifindex: u32,
    /// [`DropEvent::netns`].
    pub netns: u32,
    /// Destination port; ICMP type and code; for what is no IP packet, the ethertype.
    pub port: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// 4 or 6; 0 for what is no IP packet.
    pub version: u8,
    /// [`DropEvent::reply_type`].
    pub reply_type: u8,
    /// [`DropEvent::reply_code`].
    pub reply_code: u8,
    /// SYN and ACK of the TCP flags: opening, answering and going on are told apart, as policies do.
    pub opening: u8,
    /// Bits of [`field`] that are told apart: whether the sender was answered.
    pub fields: u8,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 64 && align_of::<FlowKey>() == 8);

/// Brings [`field::TCP_RESET`] to a free bit of [`FlowKey::fields`].
const RESET_SHIFT: u32 = 9;
const _: () = assert!(field::TCP_RESET >> RESET_SHIFT == 1 && field::ICMP_REPLY < 1 << 8);

/// TCP's SYN and ACK.
const OPENING: u8 = 0x12;

impl FlowKey {
    /// The flow a record belongs to.
    #[must_use]
    pub fn of(event: &DropEvent) -> Self {
        let mut key = Self::default();
        key.fill(event);
        key
    }

    /// [`FlowKey::of`] into memory of the caller's: the kernel program's stack is small.
    #[inline(always)]
    pub fn fill(&mut self, event: &DropEvent) {
        let headers: &Headers = &event.headers;
        self.source = headers.source;
        self.destination = headers.destination;
        self.location = event.location;
        self.reason = event.reason;
        self.ifindex = event.ifindex;
        self.netns = event.netns;
        self.port = if event.fields & field::HEADERS == 0 {
            event.ethertype
        } else if headers.has & has::ICMP != 0 {
            u16::from_be_bytes([headers.icmp_type, headers.icmp_code])
        } else {
            headers.destination_port
        };
        self.protocol = headers.protocol;
        self.version = headers.version;
        self.reply_type = event.reply_type;
        self.reply_code = event.reply_code;
        self.opening = headers.tcp_flags & OPENING;
        let reset = event.fields & field::TCP_RESET;
        self.fields = ((event.fields & field::ICMP_REPLY | reset >> RESET_SHIFT) & 0xff) as u8;
        self.reserved = 0;
    }
}

/// How far a time may be behind that the programs read once a tick of the timer: at its slowest rate (`CONFIG_HZ=100`).
pub const COARSE_NS: u64 = 10_000_000;

/// What is kept of a flow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowValue {
    /// Packets so far.
    pub packets: u64,
    /// When the last one was dropped, as [`DropEvent::ktime_ns`], or up to [`COARSE_NS`] before.
    pub last_ns: u64,
    /// The first one's record without its packet, as words: bytes would be copied one by one.
    pub head: [u64; HEAD / 8],
}

const _: () = assert!(HEAD.is_multiple_of(8));
const _: () = assert!(size_of::<FlowValue>() == HEAD + 16);

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn event(change: impl FnOnce(&mut DropEvent)) -> DropEvent {
        let mut event = DropEvent::new_zeroed();
        event.fields = field::HEADERS | field::INTERFACE;
        event.headers.version = 4;
        event.headers.protocol = 6;
        event.headers.has = has::PORTS | has::TCP_FLAGS;
        event.headers.tcp_flags = 2;
        event.headers.source_port = 40_000;
        event.headers.destination_port = 8200;
        change(&mut event);
        event
    }

    #[test]
    fn the_source_port_and_the_time_make_no_other_flow() {
        let one = FlowKey::of(&event(|_| {}));
        let other = FlowKey::of(&event(|event| {
            event.headers.source_port = 1;
            event.ktime_ns = 9;
            event.length = 5;
            event.headers.tcp_flags |= 8;
        }));
        assert_eq!(one, other);
    }

    #[test]
    fn whatever_else_is_shown_does() {
        let changes: [fn(&mut DropEvent); 10] = [
            |event| event.headers.source[3] = 1,
            |event| event.headers.destination[3] = 1,
            |event| event.headers.destination_port = 1,
            |event| event.headers.protocol = 17,
            |event| event.headers.tcp_flags = 16,
            |event| event.reason = 1,
            |event| event.location = 1,
            |event| event.ifindex = 1,
            |event| event.netns = 1,
            |event| event.fields |= field::ICMP_REPLY,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_ne!(
                FlowKey::of(&event(|_| {})),
                FlowKey::of(&event(change)),
                "{index}"
            );
        }
    }

    #[test]
    fn icmp_has_its_type_and_code_for_a_port() {
        let icmp = |kind, code| {
            FlowKey::of(&event(|event| {
                event.headers.has = has::ICMP;
                event.headers.icmp_type = kind;
                event.headers.icmp_code = code;
            }))
        };
        assert_eq!(icmp(3, 4).port, 0x0304);
        assert_ne!(icmp(8, 0), icmp(0, 8));
    }
}
