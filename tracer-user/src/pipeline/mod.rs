//! Wires the stages: one task drains the kernel, one thread does the rest, a bounded queue between.
//!
//! The reader only copies records into the queue, without allocating; what the queue refuses is
//! counted. Decoding, attribution, explanation and the sinks run on a thread of their own, because
//! writing may block.

mod follow;
mod ledger;
mod outlet;
mod queue;
mod sizes;
#[cfg(test)]
mod tests;
mod waiting;

pub use follow::Following;
pub use ledger::{Ledger, Past};
pub use outlet::{Outcome, Outlet};
pub use queue::Waker;
pub use sizes::Sizes;

use std::collections::{HashSet, VecDeque};
use std::mem::{self, Discriminant};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use queue::{Next, Record};
use tokio_util::sync::CancellationToken;
use waiting::{Held, Released, Waiting};

use crate::attribute::Attributor;
use crate::decode::{DecodeError, Decoder, RawDrop};
use crate::enforcer;
use crate::kernel::{Capture, Clock, DeviceNames, Marks, Rulesets, TcPrograms};
use crate::record::Drop;

/// What was lost between kernel and sinks, beside what the kernel side counts itself.
#[derive(Debug, Default)]
pub struct Losses {
    decode: AtomicU64,
    /// What of it was said already.
    said: Mutex<HashSet<Discriminant<DecodeError>>>,
}

impl Losses {
    /// Records that could not be decoded.
    pub fn decode(&self) -> u64 {
        self.decode.load(Ordering::Relaxed)
    }

    /// One more; the first of its kind is said.
    fn undecoded(&self, error: &DecodeError) {
        self.decode.fetch_add(1, Ordering::Relaxed);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(mem::discriminant(error)) {
            tracing::warn!(
                %error,
                "a record from the kernel could not be decoded; others like it are counted (tracer_events_lost_total)"
            );
        } else {
            tracing::debug!(%error, "a record from the kernel could not be decoded");
        }
    }

    /// Goes on from what an earlier process has counted.
    fn restore(&self, decode: u64) {
        self.decode.fetch_add(decode, Ordering::Relaxed);
    }
}

/// What turns a record into an attributed drop.
pub struct Stages {
    /// Bytes → raw drop.
    pub decoder: Decoder,
    /// The kernel's clock → wall clock.
    pub clock: Clock,
    /// Raw drop → attributed, explained, classified drop.
    pub attributor: Attributor,
    /// Whose programs stand where a packet was dropped.
    pub tc: TcPrograms,
    /// Names of devices that a packet has left.
    pub devices: DeviceNames,
    /// Whose rules there are where a packet was dropped.
    pub rulesets: Rulesets,
    /// Where the cluster changes while drops come in: how.
    pub following: Option<Following>,
    /// Where what was told is kept, if it is.
    pub ledger: Option<Ledger>,
    /// Where it says how much it holds.
    pub sizes: Arc<Sizes>,
}

/// Where records wait between the kernel and the sinks.
pub struct Inbox {
    sender: queue::Sender,
    receiver: queue::Receiver,
    waker: Waker,
}

impl Default for Inbox {
    fn default() -> Self {
        let (sender, receiver, waker) = queue::bounded(QUEUE_RECORDS);
        Self {
            sender,
            receiver,
            waker,
        }
    }
}

impl Inbox {
    /// What wakes the sinks' side.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// Runs until `stop` is cancelled, the outlet has had enough, or a sink fails.
///
/// On a stop the kernel's ring is drained once more and everything queued is written, so that nothing
/// captured before is lost.
///
/// # Errors
/// What the kernel side or a sink says.
pub async fn run(
    capture: &mut Capture,
    inbox: Inbox,
    mut stages: Stages,
    mut outlet: Outlet,
    losses: Arc<Losses>,
    stop: CancellationToken,
) -> Result<Outcome, Error> {
    let Inbox {
        sender, receiver, ..
    } = inbox;
    let worker = {
        let losses = Arc::clone(&losses);
        let stop = stop.clone();
        std::thread::Builder::new()
            .name("sinks".into())
            .spawn(move || {
                // However the thread ends, the reader must not go on without it.
                let _stop = stop.drop_guard();
                work(&receiver, &mut stages, &mut outlet, &losses).map(|()| outlet.outcome())
            })?
    };
    let captured = capture
        .run_marked(
            stop,
            |record| sender.send(record),
            |marks| sender.mark(marks),
        )
        .await;
    drop(sender);
    let written = tokio::task::spawn_blocking(move || worker.join())
        .await
        .map_err(|_| Error::Worker)?
        .map_err(|_| Error::Worker)?;
    captured?;
    Ok(written?)
}

/// Records kept back until the cluster is known, at most.
const EARLY: usize = 4096;

/// How often the cluster's objects are counted, at most.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

/// Records the queue holds, about as many as the ring: 1.4 MB.
const QUEUE_RECORDS: usize = 4096;

fn work(
    receiver: &queue::Receiver,
    stages: &mut Stages,
    outlet: &mut Outlet,
    losses: &Losses,
) -> std::io::Result<()> {
    stages.sizes.count(&stages.attributor);
    let Some(mut following) = stages.following.take() else {
        loop {
            let next = match receiver.try_next() {
                Some(next) => next,
                None => {
                    outlet.flush()?;
                    receiver.next(None)
                }
            };
            match next {
                Next::Record(record) => {
                    if !take(record, stages, None, outlet, losses)? {
                        break;
                    }
                }
                Next::Mark(marks) => keep(*marks, stages, None, outlet)?,
                Next::Woken => {}
                Next::End => break,
            }
        }
        return outlet.flush();
    };
    follow(receiver, stages, &mut following, outlet, losses)
}

/// As above, with a cluster that changes.
fn follow(
    receiver: &queue::Receiver,
    stages: &mut Stages,
    following: &mut Following,
    outlet: &mut Outlet,
    losses: &Losses,
) -> std::io::Result<()> {
    // Nothing is looked at before the first whole state, or before that has taken too long.
    let mut early = VecDeque::new();
    while let Some(until) = following.start()
        && early.len() < EARLY
    {
        following.catch_up(stages, outlet);
        match receiver.next(Some(until)) {
            Next::Woken => {}
            Next::End => break,
            next => early.push_back(next),
        }
    }
    let mut count_at = Instant::now();
    'records: loop {
        following.catch_up(stages, outlet);
        while let Some(released) = following.release(&stages.attributor) {
            let more = match released {
                Released::Known(held) => judge(held, stages, following, outlet)?,
                Released::Settled(held) => give(&held.raw, held.time, stages, outlet)?,
            };
            if !more {
                break 'records;
            }
        }
        keep_up(stages, following, outlet)?;
        let next = match early.pop_front().or_else(|| receiver.try_next()) {
            Some(next) => next,
            None => {
                outlet.flush()?;
                stages
                    .sizes
                    .set_waiting(following.waiting.records().count());
                let mut until = following.next();
                if Instant::now() >= count_at {
                    stages.sizes.count(&stages.attributor);
                    count_at = Instant::now() + COUNTED_EVERY;
                } else {
                    until = until.min(count_at);
                }
                receiver.next(Some(until))
            }
        };
        match next {
            Next::Record(record) => {
                if !take(record, stages, Some(following), outlet, losses)? {
                    break;
                }
            }
            Next::Mark(marks) => keep(*marks, stages, Some(following), outlet)?,
            Next::Woken => {}
            Next::End => break,
        }
    }
    while let Some(held) = following.waiting.release_any() {
        if !give(&held.raw, held.time, stages, outlet)? {
            break;
        }
    }
    keep_up(stages, following, outlet)?;
    outlet.flush()
}

/// Keeps what was told, but for what waits here.
fn keep(
    marks: Marks,
    stages: &mut Stages,
    following: Option<&Following>,
    outlet: &mut Outlet,
) -> std::io::Result<()> {
    let Some(ledger) = &mut stages.ledger else {
        return Ok(());
    };
    outlet.flush()?;
    match following {
        Some(following) => ledger.keep(marks, following.taken, &following.waiting),
        None => ledger.keep(marks, 0, &Waiting::default()),
    }
    Ok(())
}

/// Keeps what was given since the last marks, once nothing waits any more.
fn keep_up(stages: &mut Stages, following: &Following, outlet: &mut Outlet) -> std::io::Result<()> {
    if let Some(ledger) = &mut stages.ledger
        && ledger.is_owed()
        && following.waiting.is_empty()
    {
        outlet.flush()?;
        ledger.all_given();
    }
    Ok(())
}

/// One record; whether the outlet wants more.
fn take(
    record: Record,
    stages: &mut Stages,
    mut following: Option<&mut Following>,
    outlet: &mut Outlet,
    losses: &Losses,
) -> std::io::Result<bool> {
    if let Some(ledger) = &mut stages.ledger {
        ledger.take();
    }
    if let Some(following) = &mut following {
        following.taken += 1;
    }
    let raw = match stages.decoder.decode(record.bytes()) {
        Ok(raw) => raw,
        Err(error) => {
            losses.undecoded(&error);
            return Ok(true);
        }
    };
    let Some(following) = following else {
        let time = stages.clock.wall(raw.ktime_ns);
        return give(&raw, time, stages, outlet);
    };
    let time = following.time(&raw, stages);
    let number = following.taken;
    let held = Held {
        raw,
        time,
        record,
        number,
    };
    match following.hold_unknown(held, &stages.attributor) {
        Some(held) => judge(held, stages, following, outlet),
        None => Ok(true),
    }
}

/// One drop whose ends are known, unless there may be a policy that is not; whether the outlet wants more.
fn judge(
    held: Held,
    stages: &mut Stages,
    following: &mut Following,
    outlet: &mut Outlet,
) -> std::io::Result<bool> {
    let drop = stages.attributor.judge(&held.raw, held.time);
    if !drop.is_disagreement() {
        return tell(drop, &held.raw, stages, outlet);
    }
    match following.waiting.hold_disputed(held, Instant::now()) {
        Some(held) => tell(drop, &held.raw, stages, outlet),
        None => Ok(true),
    }
}

/// One drop, attributed; whether the outlet wants more.
fn give(
    raw: &RawDrop,
    time: Timestamp,
    stages: &mut Stages,
    outlet: &mut Outlet,
) -> std::io::Result<bool> {
    let drop = stages.attributor.judge(raw, time);
    tell(drop, raw, stages, outlet)
}

fn tell(
    mut drop: Drop,
    raw: &RawDrop,
    stages: &mut Stages,
    outlet: &mut Outlet,
) -> std::io::Result<bool> {
    stages.attributor.correlate(&mut drop);
    drop.drop.programs = stages.tc.at(raw);
    let enforced = enforcer::judge(raw, &drop.drop.programs, stages.rulesets.at(raw));
    enforced.tell(&mut drop.drop);
    if let Some(input) = &raw.story.devices.input
        && input.name.is_none()
    {
        drop.drop.input_interface = stages.devices.name(raw.netns, input.index);
    }
    outlet.accept(&drop, Some(raw))
}

/// Why the pipeline ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
    /// A sink, or a thread that could not be started.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The thread of the sinks panicked.
    #[error("the thread that writes the drops died")]
    Worker,
}

/// Ends after `duration`, on SIGINT or on SIGTERM, whichever comes first, by cancelling `stop`.
///
/// # Errors
/// Where the signals cannot be listened to.
pub fn stop_on_signals(
    stop: &CancellationToken,
    duration: Option<Duration>,
) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = end => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
    });
    Ok(())
}
