//! Draining the ring: asleep while nothing is dropped, on a timer while something is.
//!
//! A reader that is woken for every record costs ten times what the programs do. So the programs wake
//! it only after a quiet spell (see `tracer-ebpf/src/ring.rs`), and it looks by itself for as long as
//! there was something not long ago.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya::programs::Program;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracer_common::WAKE_EVERY_NS;

use super::clock::now_ns;
use super::error::Error;
use super::flows::{Counted, Flows};
use super::load::{Capture, ICMP_SEND, KFREE_SKB};

/// How often the ring is looked at while there is something in it, and how long it must have been
/// empty before the reader sleeps.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
const _: () = assert!(DRAIN_EVERY.as_nanos() > WAKE_EVERY_NS as u128);

/// A look even when all is quiet: a program that was held up between taking room and handing over
/// may have been seen as quiet.
const QUIET: Duration = Duration::from_secs(1);

/// How often the end waits for a full queue.
const LAST_TRIES: usize = 200;

/// Records taken before other tasks get their turn.
const BATCH: usize = 4096;

impl Capture {
    /// Hands every record to `each` until `cancel`: the first packet of a flow at once, repeats every [`super::Options::fold_every`]. Then takes the programs out, hands over what is still in the ring and the table, and
    /// returns.
    ///
    /// `each` says whether it took the record; one that it did not take comes again, counted.
    ///
    /// Needs a tokio runtime with I/O and time.
    pub async fn run(
        &mut self,
        cancel: CancellationToken,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let ready = register(&self.ring)?;
        let mut last_record = Instant::now();
        let mut last_sweep = Instant::now();
        while !cancel.is_cancelled() {
            if last_sweep.elapsed() >= self.fold_every {
                last_sweep = Instant::now();
                self.sweep(&mut each)?;
            }
            match drain(&mut self.ring, &mut self.flows, &mut each) {
                0 => {}
                BATCH => {
                    last_record = Instant::now();
                    tokio::task::yield_now().await;
                    continue;
                }
                _ => last_record = Instant::now(),
            }
            (self.flush_log)();
            let wait = if last_record.elapsed() > DRAIN_EVERY {
                QUIET
            } else {
                DRAIN_EVERY
            };
            let wait = wait.min(self.fold_every);
            tokio::select! {
                () = cancel.cancelled() => {}
                woken = timeout(wait, ready.readable()) => {
                    if let Ok(guard) = woken {
                        guard.map_err(waiting)?.clear_ready();
                    }
                }
            }
        }
        self.detach();
        while drain(&mut self.ring, &mut self.flows, &mut each) > 0 {}
        // What is refused now would be lost: whoever takes it is given time to.
        for _ in 0..LAST_TRIES {
            self.sweep(&mut each)?;
            if !self.flows.is_owing() {
                break;
            }
            tokio::time::sleep(DRAIN_EVERY).await;
        }
        (self.flush_log)();
        Ok(())
    }

    /// Hands on what was counted since the last time.
    fn sweep(&mut self, each: &mut impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let counters = self.counters()?;
        let counted = Counted {
            folded: counters.folded,
            overflowed: counters.overflowed,
            ring_full: counters.ring_full,
        };
        self.flows.sweep(counted, now_ns(), each)
    }

    /// Takes the programs out of the kernel; what is in the ring stays.
    fn detach(&mut self) {
        for name in [KFREE_SKB.btf, KFREE_SKB.raw, ICMP_SEND.btf, ICMP_SEND.raw] {
            let unloaded = match self.ebpf.program_mut(name) {
                Some(Program::BtfTracePoint(program)) => program.unload(),
                Some(Program::RawTracePoint(program)) => program.unload(),
                _ => Ok(()),
            };
            // One flavour of each was never loaded.
            if let Err(error) = unloaded {
                tracing::trace!(name, %error, "not unloaded");
            }
        }
    }
}

#[expect(unsafe_code, reason = "tokio's safe constructor is deprecated")]
fn register(ring: &RingBuf<MapData>) -> Result<AsyncFd<OwnedFd>, Error> {
    let fd = ring.as_fd().try_clone_to_owned().map_err(waiting)?;
    // SAFETY: an `OwnedFd` is one and the same open file until it is dropped, and it is dropped with
    // the `AsyncFd`.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(|error| waiting(error.into()))
}

fn waiting(source: io::Error) -> Error {
    Error::Io {
        action: "wait for the ring buffer",
        path: None,
        source,
    }
}

/// Hands on up to [`BATCH`] records, and says how many.
fn drain(
    ring: &mut RingBuf<MapData>,
    flows: &mut Flows,
    each: &mut impl FnMut(&[u8]) -> bool,
) -> usize {
    let mut records = 0;
    while records < BATCH
        && let Some(record) = ring.next()
    {
        flows.first(&record, each);
        records += 1;
    }
    records
}
