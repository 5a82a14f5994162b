//! Taking flows out of the table while programs count in it.
//!
//! A program looks a flow up and adds to it without a lock: taken out in between, the packet is in nobody's count.
//! So programs are told first which flows are to go, and it is waited for those that have not heard.

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use tracer_common::COARSE_NS;
use tracer_common::handover::LEAVING;

use super::error::{Error, boxed};
use super::pin::all_have_seen;

/// Tells programs which flows leave their table.
pub(super) struct Leaving(Array<MapData, u32>);

impl Leaving {
    /// By their `MODE`. What an agent that was killed told them is taken back.
    pub(super) fn new(mode: &Map) -> Result<Self, Error> {
        let Map::Array(mode) = mode else {
            return Err(Error::Load("the map of modes is no array".into()));
        };
        let mode = mode.fd().as_fd().try_clone_to_owned().map_err(boxed)?;
        let mode = MapData::from_fd(mode).map_err(boxed)?;
        let mode = Array::try_from(Map::Array(mode)).map_err(boxed)?;
        let mut leaving = Self(mode);
        leaving.end()?;
        Ok(leaving)
    }

    /// From the return on nothing is added to flows that had no packet for so long before the call.
    pub(super) fn begin(&mut self, silent: Duration) -> Result<(), Error> {
        // By the programs' clock, which may be behind.
        let silent = silent.saturating_sub(Duration::from_nanos(COARSE_NS));
        let millis = u32::try_from(silent.as_millis()).unwrap_or(u32::MAX);
        self.set(millis.max(1))?;
        all_have_seen();
        Ok(())
    }

    /// None leaves any more.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.set(0)
    }

    fn set(&mut self, millis: u32) -> Result<(), Error> {
        self.0.set(LEAVING, millis, 0).map_err(boxed)
    }
}
