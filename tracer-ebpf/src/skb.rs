//! The only file that reads the kernel's structs.
//!
//! rustc emits no CO-RE relocations, so every offset comes from the running kernel's BTF, by way of
//! [`tracer_common::Config`]. At a BTF tracepoint the verifier knows what the pointers point to, and
//! fields are read straight away; at a raw one each struct has to be copied by a helper, and the
//! `sk_buff` is copied whole, once, because a call costs more than the bytes.

use core::hint::black_box;
use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};
use tracer_common::{ABSENT, CAPTURE, GLANCE, IFNAME, PacketBytes, feature};

use crate::config::config;
use crate::pages;
use crate::state::{SKB_MAX, Scratch};

/// Length of an Ethernet header.
const ETHERNET: u64 = 14;
/// A header offset that was never set.
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/skbuff.h> (`skb_mac_header_was_set`)
const UNSET: u16 = u16::MAX;
/// `SKB_DST_NOREF`: the lowest bit of `_skb_refdst` is a flag.
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/skbuff.h> (`SKB_DST_PTRMASK`)
const DST_MASK: u64 = !1;

/// `_nfct`'s lowest bits say how the packet belongs to its connection (`NFCT_INFOMASK`); from 3 on it
/// is a reply (`IP_CT_IS_REPLY`).
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter/nf_conntrack_common.h>
const CT_INFO: u64 = 7;
const CT_REPLY: u64 = 3;
/// `IPS_DST_NAT`, in the same file.
const DST_NAT: u32 = 1 << 5;

/// A way to the fields of a struct at an address.
pub(crate) trait Access {
    /// The field at `offset` of the struct at `address`.
    fn read<T: Copy>(address: u64, offset: u32) -> Option<T>;

    /// An `sk_buff` to read fields of, in as many ways as one likes.
    fn skb(address: u64, scratch: *mut Scratch) -> Option<u64>;

    /// Copies `size` bytes, at most [`CAPTURE`], of the `sk_buff` of [`Access::skb`], wherever they are, from
    /// `offset` bytes behind where its data begins. Not every way can.
    fn copy(skb: u64, offset: u32, size: u32, scratch: *mut Scratch) -> bool;
}

/// Straight loads, through pointers whose type the verifier knows. It has a load from a bad address
/// give 0.
pub(crate) struct Typed;

impl Access for Typed {
    #[inline(always)]
    fn read<T: Copy>(address: u64, offset: u32) -> Option<T> {
        if address == 0 || offset == ABSENT {
            return None;
        }
        // SAFETY: the verifier lets through only what is inside a struct of the kernel's, and the field
        // is aligned, as user space has checked; volatile, as the kernel may be writing. The types
        // read are plain numbers.
        Some(unsafe { ((address + u64::from(offset)) as *const T).read_volatile() })
    }

    #[inline(always)]
    fn skb(address: u64, _: *mut Scratch) -> Option<u64> {
        Some(address)
    }

    #[inline(always)]
    fn copy(skb: u64, offset: u32, size: u32, scratch: *mut Scratch) -> bool {
        config!(features) & feature::PAGES != 0 && pages::copy(skb, offset, size, scratch)
    }
}

/// Copies made by a helper, which checks the address.
pub(crate) struct Copied;

impl Access for Copied {
    #[inline(always)]
    fn read<T: Copy>(address: u64, offset: u32) -> Option<T> {
        if address == 0 || offset == ABSENT {
            return None;
        }
        // SAFETY: the helper checks the address; the types read are plain numbers.
        unsafe { bpf_probe_read_kernel((address + u64::from(offset)) as *const T).ok() }
    }

    #[inline(always)]
    fn skb(address: u64, scratch: *mut Scratch) -> Option<u64> {
        let size = config!(skb_size) as usize;
        if size == 0 || size > SKB_MAX {
            return None;
        }
        // SAFETY: the scratch is a live map value of this CPU, and `size` fits its `skb`. The helper
        // checks the source.
        unsafe {
            let copy = (&raw mut (*scratch).skb).cast::<u8>();
            let room = core::slice::from_raw_parts_mut(copy, size);
            bpf_probe_read_kernel_buf(address as *const u8, room).ok()?;
            Some(copy as u64)
        }
    }

    #[inline(always)]
    fn copy(_: u64, _: u32, _: u32, _: *mut Scratch) -> bool {
        false
    }
}

/// A `struct sk_buff`.
pub(crate) struct SkBuff<A> {
    address: u64,
    access: PhantomData<A>,
}

impl<A: Access> SkBuff<A> {
    /// The `sk_buff` at `address`.
    #[inline(always)]
    pub(crate) fn new(address: u64, scratch: *mut Scratch) -> Option<Self> {
        Some(Self {
            address: A::skb(address, scratch)?,
            access: PhantomData,
        })
    }

    /// The field at `offset`. Both ways have it at hand: in place, or in the copy in this CPU's
    /// scratch.
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        if offset as usize > SKB_MAX - size_of::<T>() {
            return None;
        }
        Typed::read(self.address, offset)
    }

    /// `skb->mark`.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        self.field(config!(skb_mark)).unwrap_or(0)
    }

    /// `skb->protocol` in host byte order; 0 where nobody has set it yet.
    #[inline(always)]
    pub(crate) fn ethertype(&self) -> u16 {
        u16::from_be(self.field(config!(skb_protocol)).unwrap_or(0))
    }

    /// Where the packet is, from its network header on.
    #[inline(always)]
    pub(crate) fn extent(&self) -> Extent {
        let data: u64 = self.field(config!(skb_data)).unwrap_or(0);
        let total: u32 = self.field(config!(skb_len)).unwrap_or(0);
        let paged: u32 = self.field(config!(skb_data_len)).unwrap_or(0);
        let start = self.network_header(data);
        // `data` may stand before the network header (tc, XDP: at the link layer's) or after it (at
        // the transport's, once the IP layer is done).
        let offset = start.wrapping_sub(data).cast_signed();
        let length = i64::from(total) - offset;
        Extent {
            start,
            offset,
            length,
            linear: length - i64::from(paged),
            total,
        }
    }

    /// Where the network header is: said by the stack, or, before it came that far, told from where
    /// the data begins.
    #[inline(always)]
    fn network_header(&self, data: u64) -> u64 {
        let head: u64 = self.field(config!(skb_head)).unwrap_or(0);
        let network: u16 = self.field(config!(skb_network_header)).unwrap_or(UNSET);
        // A new sk_buff has 0 here, which would be inside its headroom.
        if network != UNSET && network != 0 {
            return head + u64::from(network);
        }
        let mac: u16 = self.field(config!(skb_mac_header)).unwrap_or(UNSET);
        if mac != UNSET && head + u64::from(mac) == data {
            return data + ETHERNET;
        }
        data
    }

    /// The device the packet was at.
    #[inline(always)]
    pub(crate) fn device(&self) -> Option<Device<A>> {
        Device::new(self.field(config!(skb_dev))?)
    }

    /// The device the packet's route leads to, where it is not at one yet.
    #[inline(always)]
    pub(crate) fn route_device(&self) -> Option<Device<Copied>> {
        // A number to the verifier, because of the flag in it.
        let route = self.field::<u64>(config!(skb_refdst))? & DST_MASK;
        Device::new(Copied::read(route, config!(dst_dev))?)
    }

    /// Whether it was sent by a socket of this machine, and never received.
    #[inline(always)]
    pub(crate) fn is_sent_here(&self) -> bool {
        self.field(config!(skb_sk)).unwrap_or(0_u64) != 0 && self.came_in() == Some(0)
    }

    /// Index of the device it was received at last; 0 where it was not.
    #[inline(always)]
    pub(crate) fn came_in(&self) -> Option<u32> {
        self.field(config!(skb_iif))
    }

    /// Whether connection tracking has anything to say of it. The mark of a packet that it was told to leave
    /// alone (`IP_CT_UNTRACKED`) counts.
    #[inline(always)]
    pub(crate) fn is_tracked(&self) -> Option<bool> {
        Some(self.field::<u64>(config!(skb_nfct))? != 0)
    }

    /// Where the packet was sent to, address and port, if connection tracking had it sent elsewhere.
    #[inline(always)]
    pub(crate) fn original(&self) -> Option<([u64; 2], u16)> {
        let entry: u64 = self.field(config!(skb_nfct))?;
        let connection = entry & !CT_INFO;
        if connection == 0 || entry & CT_INFO >= CT_REPLY {
            return None;
        }
        let status: u32 = Copied::read(connection, config!(ct_status))?;
        if status & DST_NAT == 0 {
            return None;
        }
        let address = config!(ct_address);
        let words = [
            Copied::read(connection, address)?,
            Copied::read(connection, address + 8)?,
        ];
        let port: u16 = Copied::read(connection, config!(ct_port))?;
        Some((words, u16::from_be(port)))
    }

    /// Network namespace of the socket that sent the packet, or is to get it.
    #[inline(always)]
    pub(crate) fn socket_netns(&self) -> Option<u32> {
        let socket: u64 = self.field(config!(skb_sk))?;
        inode::<A>(A::read(socket, config!(sock_net))?)
    }
}

/// A `struct net_device`.
pub(crate) struct Device<A> {
    address: u64,
    access: PhantomData<A>,
}

impl<A: Access> Device<A> {
    #[inline(always)]
    fn new(address: u64) -> Option<Self> {
        (address != 0).then_some(Self {
            address,
            access: PhantomData,
        })
    }

    /// Interface index.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> Option<u32> {
        A::read(self.address, config!(dev_ifindex))
    }

    /// The interface's name, filled up with NUL, as words: bytes would be copied one by one.
    #[inline(always)]
    pub(crate) fn name(&self) -> Option<[u64; 2]> {
        const { assert!(IFNAME == size_of::<[u64; 2]>()) };
        let offset = config!(dev_name);
        let first = A::read(self.address, offset)?;
        Some([first, A::read(self.address, offset + 8)?])
    }

    /// Inode of its network namespace.
    #[inline(always)]
    pub(crate) fn netns(&self) -> Option<u32> {
        inode::<A>(A::read(self.address, config!(dev_net))?)
    }
}

/// Inode of a `struct net`.
#[inline(always)]
fn inode<A: Access>(net: u64) -> Option<u32> {
    A::read(net, config!(net_inum))
}

/// Where a packet is in memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Of its network header.
    start: u64,
    /// That, from where the data begins.
    offset: i64,
    /// From there to the packet's end, in bytes.
    length: i64,
    /// Of these, in one piece there.
    linear: i64,
    /// `skb->len`.
    total: u32,
}

impl Extent {
    /// Copies the first [`GLANCE`] bytes into the scratch, and returns how many of them are the packet's;
    /// `None` where there is nothing. What stands behind a shorter packet is the kernel's own
    /// (`skb_shared_info`, which is longer), and is not looked at.
    #[inline(always)]
    pub(crate) fn glance(&self, scratch: *mut Scratch) -> Option<u32> {
        if self.linear <= 0 {
            return None;
        }
        // SAFETY: the scratch is a live map value of this CPU. The helper checks the source.
        unsafe {
            let glance = (&raw mut (*scratch).glance).cast::<u8>();
            let room = core::slice::from_raw_parts_mut(glance, GLANCE);
            bpf_probe_read_kernel_buf(self.start as *const u8, room).ok()?;
        }
        Some(if self.linear > GLANCE as i64 {
            GLANCE as u32
        } else {
            self.linear as u32
        })
    }

    /// Copies as much as there is room for.
    #[inline(always)]
    pub(crate) fn capture<A: Access>(&self, skb: &SkBuff<A>, scratch: *mut Scratch) -> Captured {
        let mut captured = Captured {
            scratch,
            length: u32::try_from(self.length).unwrap_or(self.total),
        };
        if self.linear < self.length && self.linear < CAPTURE as i64 && self.offset >= 0 {
            let size = if self.length > CAPTURE as i64 {
                CAPTURE as u32
            } else {
                self.length as u32
            };
            if A::copy(skb.address, self.offset as u32, size, scratch) {
                captured.is(size);
                return captured;
            }
        }
        let mut size = self.linear;
        if size > CAPTURE as i64 {
            size = CAPTURE as i64;
        }
        captured.read(self.start, size);
        captured
    }
}

/// The first bytes of a packet, in this CPU's scratch.
pub(crate) struct Captured {
    scratch: *mut Scratch,
    length: u32,
}

impl Captured {
    /// Copies `size` bytes, at most [`CAPTURE`], from `start`.
    #[inline(always)]
    fn read(&mut self, start: u64, size: i64) {
        // SAFETY: the scratch is a live map value of this CPU, and `size` fits its `packet`. The helper
        // checks the source.
        unsafe {
            (*self.scratch).captured = 0;
            // One check, without a sign, of the very register that the helper gets: older verifiers follow no other.
            let size = black_box(size.cast_unsigned());
            if size <= CAPTURE as u64 {
                let packet = (&raw mut (*self.scratch).packet).cast::<u8>();
                let room = core::slice::from_raw_parts_mut(packet, size as usize);
                if bpf_probe_read_kernel_buf(start as *const u8, room).is_ok() {
                    (*self.scratch).captured = size;
                }
            }
        }
    }

    /// So many bytes were copied.
    #[inline(always)]
    fn is(&mut self, size: u32) {
        // SAFETY: as in `read`.
        unsafe { (*self.scratch).captured = u64::from(size) };
    }

    /// Bytes from the network header to the packet's end.
    #[inline(always)]
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// Bytes that were copied.
    #[inline(always)]
    pub(crate) fn captured(&self) -> u16 {
        // SAFETY: as in `read`.
        unsafe { (*self.scratch).captured as u16 }
    }

    /// Hands the copy on.
    #[inline(always)]
    pub(crate) fn copy_into(&self, packet: &mut [u8; CAPTURE]) {
        const WORDS: usize = CAPTURE / 8;
        // SAFETY: both are `CAPTURE` bytes; both structs are aligned to 8 bytes and have these fields
        // at multiples of 8, so that they can be copied by words.
        unsafe {
            let from = (&raw const (*self.scratch).packet).cast::<[u64; WORDS]>();
            let to = packet.as_mut_ptr().cast::<[u64; WORDS]>();
            core::ptr::copy_nonoverlapping(from, to, 1);
        }
    }
}

impl PacketBytes for Captured {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = offset as usize;
        // SAFETY: as in `read`; volatile, because the verifier wants the constant bound checked too,
        // and the compiler would find that one is enough.
        let captured = unsafe { (&raw const (*self.scratch).captured).read_volatile() } as usize;
        if offset > CAPTURE - N || offset + N > captured {
            return None;
        }
        // SAFETY: inside `packet`, by the check above.
        Some(unsafe {
            (&raw const (*self.scratch).packet)
                .cast::<u8>()
                .add(offset)
                .cast::<[u8; N]>()
                .read()
        })
    }
}
