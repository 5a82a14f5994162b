//! Names of network devices by their index.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Looks names up in the network namespace of this process.
#[derive(Debug)]
pub struct DeviceNames {
    /// Its inode.
    netns: Option<u32>,
    socket: Option<OwnedFd>,
}

impl DeviceNames {
    /// For devices in the network namespace of this process.
    pub fn new() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None);
        Self {
            netns: own_netns(),
            socket: socket.ok(),
        }
    }

    /// The name of a device there; `None` where it is elsewhere, or gone.
    pub fn name(&self, netns: Option<u32>, index: u32) -> Option<String> {
        if netns.is_none() || netns != self.netns {
            return None;
        }
        index_to_name(self.socket.as_ref()?, index).ok()
    }
}

impl Default for DeviceNames {
    fn default() -> Self {
        Self::new()
    }
}

/// Inode of the network namespace of this process.
pub(super) fn own_netns() -> Option<u32> {
    let netns = std::fs::metadata("/proc/self/ns/net").ok()?;
    u32::try_from(netns.ino()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_its_name_here_and_nowhere_else() {
        let names = DeviceNames::new();
        assert_eq!(names.name(own_netns(), 1).as_deref(), Some("lo"));
        assert_eq!(names.name(own_netns().map(|inode| inode + 1), 1), None);
        assert_eq!(names.name(None, 1), None);
        assert_eq!(names.name(own_netns(), u32::MAX), None);
    }
}
