//! The maps, and the layout of their keys, which `lab::enforcer::tc` writes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray};

use crate::packet::{Packet, Side};

/// Interface index → [`Side`] bits in which its pod is isolated.
#[map]
static ISOLATED: HashMap<u32, u8> = HashMap::with_max_entries(256, 0);

/// Interface index (native order), side, protocol or 0 for any, destination port in network order or 0
/// for any, peer's prefix (IPv4 mapped into IPv6).
#[map]
static ALLOW: LpmTrie<[u8; 24], u8> = LpmTrie::with_max_entries(1 << 16, 0);

/// Interface index, peer, peer's port, pod's port, protocol, three zero bytes.
#[map]
static FLOWS: LruHashMap<[u8; 28], u8> = LruHashMap::with_max_entries(1 << 16, 0);

/// Service address, port in network order, protocol, a zero byte → endpoint's address and port.
#[map]
static SERVICES: HashMap<[u8; 20], [u8; 18]> = HashMap::with_max_entries(256, 0);

/// Dropped packets: 0 to the pod, 1 from it.
#[map]
static DROPPED: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// [`Side`] bits in which the pod behind an interface is isolated.
pub fn isolated(interface: u32) -> u8 {
    // SAFETY: the value is one byte; user space replaces it whole.
    unsafe { ISOLATED.get(interface) }.copied().unwrap_or(0)
}

/// Where a packet from the pod will end up: behind the Service it is addressed to, if it is to one.
/// Policies judge that, though the translation itself comes later (Calico eBPF does the same).
fn behind_service(packet: &Packet) -> ([u8; 16], [u8; 2]) {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&packet.peer);
    key[16..18].copy_from_slice(&packet.destination_port);
    key[18] = packet.protocol;
    let (mut peer, mut port) = (packet.peer, packet.destination_port);
    // SAFETY: user space writes the map before it isolates anyone, and not again.
    if let Some(endpoint) = unsafe { SERVICES.get(key) } {
        peer.copy_from_slice(&endpoint[..16]);
        port.copy_from_slice(&endpoint[16..]);
    }
    (peer, port)
}

/// Whether the allow-list has the packet: for its port, its protocol, or anything of its peer.
pub fn allowed(interface: u32, side: Side, packet: &Packet) -> bool {
    let (peer, port) = match side {
        Side::ToPod => (packet.peer, packet.destination_port),
        Side::FromPod => behind_service(packet),
    };
    let mut data = [0; 24];
    data[..4].copy_from_slice(&interface.to_ne_bytes());
    data[4] = side.bit();
    data[8..].copy_from_slice(&peer);
    let mut key = Key::new(192, data);
    if ALLOW.get(&key).is_some() {
        return true;
    }
    key.data[5] = packet.protocol;
    if ALLOW.get(&key).is_some() {
        return true;
    }
    key.data[6] = port[0];
    key.data[7] = port[1];
    ALLOW.get(&key).is_some()
}

fn flow(interface: u32, packet: &Packet) -> [u8; 28] {
    let mut key = [0; 28];
    key[..4].copy_from_slice(&interface.to_ne_bytes());
    key[4..20].copy_from_slice(&packet.peer);
    key[20..22].copy_from_slice(&packet.peer_port);
    key[22..24].copy_from_slice(&packet.pod_port);
    key[24] = packet.protocol;
    key
}

/// Whether a packet of this flow was let through before, in either direction.
pub fn known_flow(interface: u32, packet: &Packet) -> bool {
    // SAFETY: the value is not read.
    unsafe { FLOWS.get(flow(interface, packet)) }.is_some()
}

/// Lets the rest of the flow through, replies included.
pub fn remember_flow(interface: u32, packet: &Packet) {
    // A full LRU map makes room by itself; where even that fails, the next packet tries again.
    let _ = FLOWS.insert(flow(interface, packet), 1, 0);
}

/// Counts a drop.
pub fn count_drop(side: Side) {
    let at = match side {
        Side::ToPod => 0,
        Side::FromPod => 1,
    };
    if let Some(count) = DROPPED.get_ptr_mut(at) {
        // SAFETY: the pointer is to this CPU's own slot, and a tc program is not interrupted by another
        // one on the same CPU.
        unsafe { *count += 1 };
    }
}
