//! Taking flows out of the table while programs count in it.
//!
//! A program looks a flow up and adds to it without a lock: taken out in between, the packet is in nobody's count.
//! So programs are told first which flows are to go, and it is waited for those that have not heard.

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use tracer_common::handover::{LAST_TAKING, LEAVING, MOST_SILENT, SILENT_BITS};

use super::error::{Error, boxed};
use super::pin::all_have_seen;

/// So much clocks of two CPUs may differ, at most.
const SLACK: Duration = Duration::from_millis(10);

/// Tells programs which flows leave their table.
pub(super) struct Leaving {
    mode: Array<MapData, u32>,
    /// Of the last taking. Flows that began anew in one are still there in the next: those have other keys.
    number: u32,
}

impl Leaving {
    /// By their `MODE`. What an agent that was killed told them is taken back.
    pub(super) fn new(mode: &Map) -> Result<Self, Error> {
        let Map::Array(mode) = mode else {
            return Err(Error::Load("the map of modes is no array".into()));
        };
        let mode = mode.fd().as_fd().try_clone_to_owned().map_err(boxed)?;
        let mode = MapData::from_fd(mode).map_err(boxed)?;
        let mode = Array::try_from(Map::Array(mode)).map_err(boxed)?;
        let number = mode.get(&LEAVING, 0).map_err(boxed)? >> SILENT_BITS;
        let mut leaving = Self { mode, number };
        leaving.end()?;
        Ok(leaving)
    }

    /// From the return on nothing is added to flows that had no packet for so long before the call.
    pub(super) fn begin(&mut self, silent: Duration) -> Result<(), Error> {
        let silent = silent.saturating_sub(SLACK).as_millis();
        let millis = u32::try_from(silent).unwrap_or(MOST_SILENT);
        let millis = millis.clamp(1, MOST_SILENT);
        self.number = self.number % LAST_TAKING + 1;
        self.set(millis)?;
        all_have_seen();
        Ok(())
    }

    /// None leaves any more.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.set(0)
    }

    fn set(&mut self, millis: u32) -> Result<(), Error> {
        let leaving = self.number << SILENT_BITS | millis;
        self.mode.set(LEAVING, leaving, 0).map_err(boxed)
    }
}
