//! The tables that the programs count in.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray};
use tracer_common::{FlowKey, FlowValue};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::error::{Error, boxed};
use super::leaving::Leaving;
use super::streaks::States;
use super::sys::{self, Batch};

const READ: &str = "read the kernel's table";

/// Entries read at a time: a tenth of a megabyte.
const AT_A_TIME: usize = 512;
/// Entries of one bucket, at most. There are as many buckets as entries, so that more than a handful in one
/// are not to be expected.
const BUCKET: usize = 64;

/// What [`super::flows::Flows`] needs of the tables.
pub(super) trait Tables {
    /// Hands out flows until one is not wanted any more; whether they were all.
    fn each(&self, each: impl FnMut(FlowKey, FlowValue) -> bool) -> Result<bool, Error>;

    /// Takes flows out that have had no packets for `silent`, and hands out what each was in that moment. One
    /// that cannot be taken out without losing a packet stays.
    fn take(
        &mut self,
        flows: &[Silent],
        silent: Duration,
        each: impl FnMut(FlowKey, FlowValue),
    ) -> Result<(), Error>;

    /// Packets that found no room, by the bit of their reason.
    fn overflowed(&self, index: u32) -> Result<u64, Error>;
}

/// A flow as it was seen to be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) key: FlowKey,
    /// [`FlowValue::packets`].
    pub(super) packets: u64,
    /// [`FlowValue::last_ns`].
    pub(super) last_ns: u64,
}

/// The kernel's.
pub(super) struct KernelTables {
    flows: OwnedFd,
    overflow: PerCpuArray<MapData, u64>,
    states: States,
    /// None where no program counts in them any more.
    leaving: Option<Leaving>,
    /// The kernel can hand out an entry and delete it in one step (since 5.14).
    can_take: bool,
}

impl KernelTables {
    pub(super) fn new(
        flows: Map,
        overflow: Map,
        states: States,
        leaving: Option<Leaving>,
    ) -> Result<Self, Error> {
        let Map::HashMap(data) = flows else {
            return Err(Error::Load("the map of flows is no hash table".into()));
        };
        Ok(Self {
            flows: data.fd().as_fd().try_clone_to_owned().map_err(boxed)?,
            overflow: PerCpuArray::try_from(overflow).map_err(boxed)?,
            states,
            leaving,
            can_take: true,
        })
    }

    fn get(&self, key: &FlowKey) -> io::Result<Option<FlowValue>> {
        let mut value = FlowValue::new_zeroed();
        let found = sys::get(self.flows.as_fd(), key.as_bytes(), value.as_mut_bytes())?;
        Ok(found.then_some(value))
    }

    /// Takes one out; `None` where it is not there. Fails on kernels that do not know how.
    fn take_one(&self, key: &FlowKey) -> io::Result<Option<FlowValue>> {
        let mut value = FlowValue::new_zeroed();
        let taken = sys::take(self.flows.as_fd(), key.as_bytes(), value.as_mut_bytes())?;
        Ok(taken.then_some(value))
    }

    /// Takes out of them what has had no packets since it was seen.
    fn take_silent(
        &mut self,
        flows: &[Silent],
        mut each: impl FnMut(FlowKey, FlowValue),
    ) -> Result<(), Error> {
        let cannot = |error| cannot("take a flow out of the kernel's table", error);
        // What stands beside the table was told too, and finds its way there later.
        let held = self.states.held()?;
        let mut keys = HashSet::with_capacity(flows.len());
        for flow in flows {
            let is_as_seen =
                |value: FlowValue| (value.packets, value.last_ns) == (flow.packets, flow.last_ns);
            if !held.contains(&flow.key)
                && self.get(&flow.key).map_err(cannot)?.is_some_and(is_as_seen)
            {
                keys.insert(flow.key);
            }
        }
        if self.can_take {
            for key in &keys {
                match self.take_one(key) {
                    Ok(Some(value)) => each(*key, value),
                    Ok(None) => {}
                    Err(error) if is_unknown(&error) => {
                        self.can_take = false;
                        break;
                    }
                    Err(error) => return Err(cannot(error)),
                }
            }
        }
        if !self.can_take {
            self.take_buckets(&keys, each).map_err(cannot)?;
        }
        Ok(())
    }

    /// The same on older kernels, which hand out and delete in one step whole buckets only (since 5.6): those
    /// with nothing in them but what is to be taken out.
    fn take_buckets(
        &self,
        keys: &HashSet<FlowKey>,
        mut each: impl FnMut(FlowKey, FlowValue),
    ) -> io::Result<()> {
        let mut room = Room::new(BUCKET);
        let mut at = None;
        loop {
            let (entries, next) = self.bucket(at, &mut room)?;
            // Where the first bucket with anything in it is, is not known: a flow that comes between would be
            // taken in its place, and its first packet be told twice.
            if at.is_some() && room.keys[..entries].iter().all(|key| keys.contains(key)) {
                match room.read(&self.flows, Batch::Take, at, entries) {
                    Ok((entries, _)) => room.hand_out(entries, &mut each),
                    // Another has come into it.
                    Err(error) if is_too_small(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            if next.is_none() {
                return Ok(());
            }
            at = next;
        }
    }

    /// Reads one bucket: as much as there is room for is handed out, but no bucket in part. How many entries it
    /// has, and where the next one is.
    fn bucket(&self, at: Option<u32>, room: &mut Room) -> io::Result<(usize, Option<u32>)> {
        let mut entries = 1;
        loop {
            match room.read(&self.flows, Batch::Read, at, entries) {
                Err(error) if is_too_small(&error) && entries < BUCKET => entries += 1,
                other => return other,
            }
        }
    }
}

impl Tables for KernelTables {
    fn each(&self, mut each: impl FnMut(FlowKey, FlowValue) -> bool) -> Result<bool, Error> {
        let going_on = self.states.going_on()?;
        let mut room = Room::new(AT_A_TIME);
        let mut at = None;
        loop {
            let read = room.read(&self.flows, Batch::Read, at, AT_A_TIME);
            let (entries, next) = read.map_err(|error| cannot(READ, error))?;
            let read = room.keys.iter().zip(&room.values).take(entries);
            for (key, value) in read {
                if !going_on.contains(key) && !each(*key, *value) {
                    return Ok(false);
                }
            }
            if next.is_none() {
                break;
            }
            at = next;
        }
        for key in going_on {
            let Some(mut value) = self.get(&key).map_err(|error| cannot(READ, error))? else {
                continue;
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

    fn take(
        &mut self,
        flows: &[Silent],
        silent: Duration,
        each: impl FnMut(FlowKey, FlowValue),
    ) -> Result<(), Error> {
        let Some(mut leaving) = self.leaving.take() else {
            return self.take_silent(flows, each);
        };
        let begun = leaving.begin(silent);
        let taken = begun.and_then(|()| self.take_silent(flows, each));
        let ended = leaving.end();
        self.leaving = Some(leaving);
        taken.and(ended)
    }

    fn overflowed(&self, index: u32) -> Result<u64, Error> {
        Ok(self.overflow.get(&index, 0).map_err(boxed)?.iter().sum())
    }
}

/// Room for entries.
struct Room {
    keys: Vec<FlowKey>,
    values: Vec<FlowValue>,
}

impl Room {
    fn new(entries: usize) -> Self {
        Self {
            keys: vec![FlowKey::new_zeroed(); entries],
            values: vec![FlowValue::new_zeroed(); entries],
        }
    }

    /// Reads up to so many entries from a bucket on; how many they were, and where the next bucket is.
    fn read(
        &mut self,
        table: &OwnedFd,
        batch: Batch,
        at: Option<u32>,
        entries: usize,
    ) -> io::Result<(usize, Option<u32>)> {
        let (keys, values) = (&mut self.keys[..entries], &mut self.values[..entries]);
        sys::batch(
            table.as_fd(),
            batch,
            at,
            keys.as_mut_bytes(),
            values.as_mut_bytes(),
            entries,
        )
    }

    fn hand_out(&self, entries: usize, each: &mut impl FnMut(FlowKey, FlowValue)) {
        for (key, value) in self.keys.iter().zip(&self.values).take(entries) {
            each(*key, *value);
        }
    }
}

fn cannot(action: &'static str, source: io::Error) -> Error {
    Error::Io {
        action,
        path: None,
        source,
    }
}

/// The kernel's own number, which no libc has (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;

/// What a map operation gives that the kernel does not know.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP))
}

/// What one gives that a bucket does not fit into.
fn is_too_small(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOSPC)
}
