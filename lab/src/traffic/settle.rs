//! When all that was sent has been counted.
//!
//! A virtual cable hands a packet to the other side's CPU, and a busy machine leaves it to a kernel thread: it
//! may be counted a good while after the sender's call has returned.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long what has to come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a counter must stand still to be at its end.
const STILL: Duration = Duration::from_secs(1);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Reads a counter until it has come to `wanted`, or for half a minute, and returns what it was at last.
pub fn until_counted(wanted: u64, mut counter: impl FnMut() -> Result<u64>) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counted = counter()?;
        if counted >= wanted || Instant::now() > deadline {
            return Ok(counted);
        }
        thread::sleep(PAUSE);
    }
}

/// The same where some of what was sent may not have come so far: also ends once the counter has stood still
/// for a second.
pub fn settled(wanted: u64, mut counter: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut counted = counter()?;
    let mut since = Instant::now();
    while counted < wanted && since.elapsed() < STILL {
        thread::sleep(PAUSE);
        let now = counter()?;
        if now != counted {
            (counted, since) = (now, Instant::now());
        }
    }
    Ok(counted)
}
