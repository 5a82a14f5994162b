//! The only file that reads the kernel's structs.
//!
//! rustc emits no CO-RE relocations, so every offset comes from the running kernel's BTF, by way of
//! [`tracer_common::Config`]. The `sk_buff` is copied whole, once: one helper call instead of ten.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};
use tracer_common::{ABSENT, CAPTURE, IFNAME, PacketBytes};

use crate::config::config;
use crate::state::{SKB_MAX, Scratch};

/// Length of an Ethernet header.
const ETHERNET: u64 = 14;
/// A header offset that was never set.
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/skbuff.h> (`skb_mac_header_was_set`)
const UNSET: u16 = u16::MAX;
/// `SKB_DST_NOREF`: the lowest bit of `_skb_refdst` is a flag.
/// <https://github.com/torvalds/linux/blob/v6.18/include/linux/skbuff.h> (`SKB_DST_PTRMASK`)
const DST_MASK: u64 = !1;

/// A copy of a `struct sk_buff`.
pub(crate) struct SkBuff {
    copy: *const u8,
}

impl SkBuff {
    /// Copies the `sk_buff` at `address`.
    #[inline(always)]
    pub(crate) fn copy(address: u64, scratch: *mut Scratch) -> Option<Self> {
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
            Some(Self { copy })
        }
    }

    /// The field at `offset`, which is aligned, as user space has checked.
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        let offset = offset as usize;
        if offset > SKB_MAX - size_of::<T>() {
            return None;
        }
        // SAFETY: inside the copy, by the check above; the types read are plain numbers.
        Some(unsafe { self.copy.add(offset).cast::<T>().read() })
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

    /// The packet's first bytes from the network header on, and its length from there.
    #[inline(always)]
    pub(crate) fn packet(&self, scratch: *mut Scratch) -> Captured {
        let data: u64 = self.field(config!(skb_data)).unwrap_or(0);
        let total: u32 = self.field(config!(skb_len)).unwrap_or(0);
        let paged: u32 = self.field(config!(skb_data_len)).unwrap_or(0);

        let start = self.network_header(data);
        // `data` may stand before the network header (tc, XDP: at the link layer's) or after it (at
        // the transport's, once the IP layer is done).
        let length = i64::from(total) - start.wrapping_sub(data).cast_signed();
        let linear = length - i64::from(paged);
        let mut captured = Captured {
            scratch,
            length: u32::try_from(length).unwrap_or(total),
        };
        let mut size = linear;
        if size > CAPTURE as i64 {
            size = CAPTURE as i64;
        }
        captured.read(start, size);
        captured
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

    /// The device the packet was at, or, on its way out and not there yet, the one its route leads
    /// to; `true` for the latter.
    #[inline(always)]
    pub(crate) fn device(&self) -> (Device, bool) {
        let device: u64 = self.field(config!(skb_dev)).unwrap_or(0);
        if device != 0 {
            return (Device(device), false);
        }
        let route = self.field::<u64>(config!(skb_refdst)).unwrap_or(0) & DST_MASK;
        (Device(read(route, config!(dst_dev)).unwrap_or(0)), true)
    }

    /// Network namespace of the socket that sent the packet, or is to get it.
    #[inline(always)]
    pub(crate) fn socket_netns(&self) -> Option<u32> {
        let socket: u64 = self.field(config!(skb_sk))?;
        inode(read(socket, config!(sock_net))?)
    }
}

/// A `struct net_device`, by its address; 0 where there is none.
pub(crate) struct Device(u64);

impl Device {
    /// Interface index.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> Option<u32> {
        read(self.0, config!(dev_ifindex))
    }

    /// Copies the interface's name; zeroes where there is none, and says so.
    #[inline(always)]
    pub(crate) fn name_into(&self, name: &mut [u8; IFNAME]) -> bool {
        // Two words, because a byte array would be copied byte by byte.
        let read = read::<[u64; 2]>(self.0, config!(dev_name));
        let [first, second] = read.unwrap_or([0; 2]);
        name[..8].copy_from_slice(&first.to_ne_bytes());
        name[8..].copy_from_slice(&second.to_ne_bytes());
        read.is_some()
    }

    /// Inode of its network namespace.
    #[inline(always)]
    pub(crate) fn netns(&self) -> Option<u32> {
        inode(read(self.0, config!(dev_net))?)
    }
}

/// Inode of a `struct net`.
#[inline(always)]
fn inode(net: u64) -> Option<u32> {
    read(net, config!(net_inum))
}

/// The field at `offset` of the struct at `address`.
#[inline(always)]
fn read<T>(address: u64, offset: u32) -> Option<T> {
    if address == 0 || offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address; the types read are plain numbers.
    unsafe { bpf_probe_read_kernel((address + u64::from(offset)) as *const T).ok() }
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
            if size > 0 && size <= CAPTURE as i64 {
                let packet = (&raw mut (*self.scratch).packet).cast::<u8>();
                let room = core::slice::from_raw_parts_mut(packet, size as usize);
                if bpf_probe_read_kernel_buf(start as *const u8, room).is_ok() {
                    (*self.scratch).captured = size as u64;
                }
            }
        }
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
