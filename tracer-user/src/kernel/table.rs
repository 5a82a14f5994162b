//! The tables that the programs count in.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use tracer_common::{FlowKey, FlowValue};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::error::{Error, boxed};
use super::streaks::States;
use super::sys;

const KEY_WORDS: usize = size_of::<FlowKey>() / 8;
const VALUE_WORDS: usize = size_of::<FlowValue>() / 8;

type Hash = aya::maps::HashMap<MapData, [u64; KEY_WORDS], [u64; VALUE_WORDS]>;

/// What [`super::flows::Flows`] needs of the tables.
pub(super) trait Tables {
    /// Hands out flows until one is not wanted any more; whether they were all. One may come twice where
    /// others leave meanwhile.
    fn each(&self, each: impl FnMut(FlowKey, FlowValue) -> bool) -> Result<bool, Error>;

    /// Takes a flow out, and hands out what it was in that moment.
    fn take(&mut self, key: &FlowKey) -> Result<Option<FlowValue>, Error>;

    /// Packets that found no room, by the bit of their reason.
    fn overflowed(&self, index: u32) -> Result<u64, Error>;
}

/// The kernel's.
pub(super) struct KernelTables {
    flows: Hash,
    /// The same once more, for what aya has no call for.
    flows_fd: OwnedFd,
    overflow: PerCpuArray<MapData, u64>,
    states: States,
    /// The kernel can hand out an entry and delete it in one step (since 5.14).
    can_take: bool,
}

impl KernelTables {
    pub(super) fn new(flows: Map, overflow: Map, states: States) -> Result<Self, Error> {
        let Map::HashMap(data) = &flows else {
            return Err(Error::Load("the map of flows is no hash table".into()));
        };
        let flows_fd = data.fd().as_fd().try_clone_to_owned().map_err(boxed)?;
        Ok(Self {
            flows_fd,
            flows: Hash::try_from(flows).map_err(boxed)?,
            overflow: PerCpuArray::try_from(overflow).map_err(boxed)?,
            states,
            can_take: true,
        })
    }
}

impl Tables for KernelTables {
    fn each(&self, mut each: impl FnMut(FlowKey, FlowValue) -> bool) -> Result<bool, Error> {
        let going_on = self.states.going_on()?;
        for entry in &self.flows {
            let (key, value) = match entry {
                Ok((key, value)) => (zerocopy::transmute!(key), zerocopy::transmute!(value)),
                // Entries come and go while we look.
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(boxed(error)),
            };
            if !going_on.contains(&key) && !each(key, value) {
                return Ok(false);
            }
        }
        for key in going_on {
            let words: [u64; KEY_WORDS] = zerocopy::transmute!(key);
            let mut value: FlowValue = match self.flows.get(&words, 0) {
                Ok(value) => zerocopy::transmute!(value),
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(boxed(error)),
            };
            let beside = self.states.beside(&key)?;
            value.packets += beside.packets;
            value.last_ns = value.last_ns.max(beside.last_ns);
            if !each(key, value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, key: &FlowKey) -> Result<Option<FlowValue>, Error> {
        // What stands beside the table was told too, and finds its way there later.
        if !self.can_take || self.states.beside(key)?.packets > 0 {
            return Ok(None);
        }
        let mut value = FlowValue::new_zeroed();
        let taken = sys::take(self.flows_fd.as_fd(), key.as_bytes(), value.as_mut_bytes());
        match taken {
            Ok(taken) => Ok(taken.then_some(value)),
            Err(error) if is_unknown(&error) => {
                // Taken out in two steps it could lose a packet in between: it stays.
                self.can_take = false;
                Ok(None)
            }
            Err(source) => Err(Error::Io {
                action: "take a flow out of the kernel's table",
                path: None,
                source,
            }),
        }
    }

    fn overflowed(&self, index: u32) -> Result<u64, Error> {
        Ok(self.overflow.get(&index, 0).map_err(boxed)?.iter().sum())
    }
}

/// The kernel's own number, which no libc has (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;

/// What a map operation gives that the kernel does not know.
fn is_unknown(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP))
}
