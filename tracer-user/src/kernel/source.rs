//! Draining the ring: asleep while nothing is dropped, on a timer while something is.
//!
//! A reader that is woken for every record costs ten times what the programs do. So the programs wake
//! it only after a quiet spell (see `tracer-ebpf/src/ring.rs`), and it looks by itself for as long as
//! there was something not long ago.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracer_common::WAKE_EVERY_NS;
use tracer_common::handover::AT_TABLES;

use super::clock::now_ns;
use super::error::{Error, boxed};
use super::flows::{Counted, Flows, Look};
use super::kept::Kept;
use super::load::Capture;
use super::pin::Marks;

/// How often the ring is looked at while there is something in it, and how long it must have been
/// empty before the reader sleeps.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
const _: () = assert!(DRAIN_EVERY.as_nanos() > WAKE_EVERY_NS as u128);

/// A look even when all is quiet: a program that was held up between taking room and handing over
/// may have been seen as quiet.
const QUIET: Duration = Duration::from_secs(1);

/// How often the end waits for a full queue.
const LAST_TRIES: usize = 200;

/// A flow this young that was not told is left to the ring, which has its first packet's bytes. Longer than
/// from a look at the ring to the next, and than a program may be held up before it hands over.
const FRESH_NS: u64 = 50_000_000;
const _: () = assert!(DRAIN_EVERY.as_nanos() * 2 < FRESH_NS as u128);

/// What becomes of flows that are only just in the table.
#[derive(Clone, Copy)]
enum Fresh {
    /// They come with the ring.
    WithTheRing {
        /// When the ring was looked at last.
        drained_ns: u64,
    },
    /// Nothing comes any more.
    AsAll,
}

/// Records taken before other tasks get their turn.
const BATCH: usize = 4096;

/// What became of what was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// It was taken.
    Taken,
    /// There is no room for it now.
    Full,
    /// Nobody takes anything any more.
    Gone,
}

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
        let each = |record: &[u8]| {
            if each(record) {
                Handed::Taken
            } else {
                Handed::Full
            }
        };
        self.run_marked(cancel, each, |_| Handed::Taken).await
    }

    /// [`Capture::run`] which also hands `mark` what was told, after it was, where the programs are pinned.
    /// Then they stay where they are at the end.
    ///
    /// `each` and `mark` say what became of what they were given; once one says [`Handed::Gone`], this returns.
    pub async fn run_marked(
        &mut self,
        cancel: CancellationToken,
        mut each: impl FnMut(&[u8]) -> Handed,
        mut mark: impl FnMut(Marks) -> Handed,
    ) -> Result<(), Error> {
        let gone = Cell::new(false);
        let taken = |handed| {
            gone.set(gone.get() || handed == Handed::Gone);
            handed == Handed::Taken
        };
        let mut each = |record: &[u8]| taken(each(record));
        let mut mark = |marks| taken(mark(marks));
        let ready = register(&self.ring)?;
        let mut last_record = Instant::now();
        let mut last_sweep: Option<Instant> = None;
        let mut last_marks: Option<Instant> = None;
        while !cancel.is_cancelled() && !gone.get() {
            let drained_ns = now_ns();
            let drained = drain(&mut self.ring, &mut self.flows, &mut each);
            let every = if self.is_owing() {
                DRAIN_EVERY
            } else {
                self.fold_every
            };
            if last_sweep.is_none_or(|last| last.elapsed() >= every) {
                self.sweep(Fresh::WithTheRing { drained_ns }, &mut each)?;
                let now = Instant::now();
                last_sweep = Some(now);
                if last_marks.is_none_or(|last| now - last >= self.fold_every) {
                    last_marks = last_sweep;
                    self.mark(&mut mark);
                }
            }
            match drained {
                0 => {}
                BATCH => {
                    last_record = Instant::now();
                    tokio::task::yield_now().await;
                    continue;
                }
                _ => last_record = Instant::now(),
            }
            (self.flush_log)();
            let wait = if last_record.elapsed() > DRAIN_EVERY && !self.is_owing() {
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
        for tries_left in (0..LAST_TRIES).rev() {
            self.sweep(Fresh::AsAll, &mut each)?;
            let done = !self.is_owing() || tries_left == 0;
            if gone.get() || done && self.mark(&mut mark) {
                break;
            }
            tokio::time::sleep(DRAIN_EVERY).await;
        }
        (self.flush_log)();
        Ok(())
    }

    /// Whether something was refused that is to be handed on again soon.
    fn is_owing(&self) -> bool {
        self.flows.is_owing() || self.kept.as_ref().is_some_and(Kept::is_owing)
    }

    /// Hands on what was counted since the last time.
    fn sweep(&mut self, fresh: Fresh, each: &mut impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        self.mode.set(AT_TABLES, 1, 0).map_err(boxed)?;
        let swept = self.sweep_tables(fresh, each);
        self.mode.set(AT_TABLES, 0, 0).map_err(boxed)?;
        swept
    }

    fn sweep_tables(
        &mut self,
        fresh: Fresh,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let counters = self.counters()?;
        let counted = Some(Counted {
            folded: counters.folded,
            overflowed: counters.overflowed,
            ring_full: counters.ring_full,
        });
        let now_ns = now_ns();
        if let Some(kept) = &mut self.kept {
            kept.sweep_older(now_ns, each)?;
        }
        let look = Look {
            now_ns,
            fresh_ns: match fresh {
                Fresh::WithTheRing { drained_ns } => drained_ns.saturating_sub(FRESH_NS),
                Fresh::AsAll => u64::MAX,
            },
            kept_marks: Some(match &self.kept {
                Some(kept) => kept.settled.number(),
                // Nobody goes on from them.
                None => u64::MAX,
            }),
        };
        self.flows.sweep(counted, look, each)
    }

    /// Hands on what was told; whether nothing is left to be marked.
    fn mark(&mut self, mark: &mut impl FnMut(Marks) -> bool) -> bool {
        let Some(kept) = &mut self.kept else {
            return true;
        };
        let Some(marks) = kept.marks(&mut self.flows) else {
            return !self.flows.is_unmarked();
        };
        let taken = mark(marks);
        if !taken {
            self.flows.mark_again();
        }
        taken
    }

    /// Takes the programs out of the kernel unless they are pinned; what is in the ring stays.
    fn detach(&mut self) {
        self.links.clear();
        self.probes.clear();
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
