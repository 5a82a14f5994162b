//! From older programs to newer ones while packets are dropped, so that each is counted once.
//!
//! Both run for each drop, the older ones first. An interruption at any step leaves one of them
//! counting; the next agent begins again at the first.

use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use rustix::thread::{MembarrierCommand, membarrier};
use tracer_common::handover::{CLAIM, COUNT, MODE, RETIRED, TAKE_OVER, WAIT};

use super::super::error::{Error, boxed};
use super::super::parts::Maps;

/// Longer than a program runs.
const GRACE: Duration = Duration::from_millis(20);

fn set(mode: &mut Map, value: u32) -> Result<(), Error> {
    let mut mode: Array<&mut MapData, u32> = Array::try_from(mode).map_err(boxed)?;
    mode.set(MODE, value, 0).map_err(boxed)
}

fn get(mode: &Map) -> Result<u32, Error> {
    let mode: Array<&MapData, u32> = Array::try_from(mode).map_err(boxed)?;
    mode.get(&MODE, 0).map_err(boxed)
}

/// Whether the programs pinned in a folder have handed over.
pub(super) fn is_retired(folder: &Path) -> bool {
    Maps::from_pins(folder)
        .and_then(|maps| get(&maps.mode))
        .is_ok_and(|mode| mode == RETIRED)
}

/// Has newer programs count nothing until they take over.
pub(in super::super) fn wait_for_older(newer: &mut Map) -> Result<(), Error> {
    set(newer, WAIT)
}

/// Hands over. After it the older programs count nothing, and can be taken out.
pub(in super::super) fn hand_over(older: &mut Map, newer: &mut Map) -> Result<(), Error> {
    if get(older)? == RETIRED && get(newer)? == COUNT {
        // Done before.
        return Ok(());
    }
    step(older, CLAIM)?;
    step(newer, TAKE_OVER)?;
    step(older, RETIRED)?;
    step(newer, COUNT)
}

fn step(mode: &mut Map, value: u32) -> Result<(), Error> {
    set(mode, value)?;
    all_have_seen();
    Ok(())
}

/// Waits until no CPU is in a program that has read the mode before.
pub(in super::super) fn all_have_seen() {
    // It waits for every RCU reader, and programs are such. Not there under nohz_full.
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(GRACE);
    }
}
