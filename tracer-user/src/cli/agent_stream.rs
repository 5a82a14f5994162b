//! An agent's drops, as `watch` and `suggest` read them: past, present, or both.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Error, color};
use crate::filter::Filter;
use crate::pipeline;
use crate::record::Drop;
use crate::stream::{self, Client, ClientError, Request};

/// Which drops of an agent's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) last: Option<usize>,
    pub(super) since: Option<Duration>,
    pub(super) follow: bool,
}

impl Asked {
    /// Asks the agent that listens at `socket`.
    pub(super) fn connect(self, socket: &Path) -> Result<Client, ClientError> {
        let since = self.since.map(ago);
        let request = Request {
            version: stream::VERSION,
            last: self.last.filter(|_| self.follow),
            since: since.or(self.last_of_all().map(|_| Timestamp::MIN)),
            follow: self.follow,
            drain: false,
        };
        Client::connect(socket, &request)
    }

    /// How many of all that the agent sends are wanted, where not it can tell: the last N are those that pass a
    /// filter, which the agent does not know. Where the past goes over into the present, nothing tells when N are
    /// complete.
    pub(super) fn last_of_all(self) -> Option<usize> {
        self.last.filter(|_| !self.follow)
    }
}

/// The time that long ago.
pub(super) fn ago(span: Duration) -> Timestamp {
    SignedDuration::try_from(span)
        .ok()
        .and_then(|span| Timestamp::now().checked_sub(span).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Says whose drops these are, and what is to be said of them.
pub(super) fn greet(client: &Client, doing: &str) {
    color::note(&format!(
        "{doing} drops on {} (from its agent)",
        client.node()
    ));
    if let Some(state) = client.state() {
        color::warn(&format!("{}: {state}", client.node()));
    }
}

/// Hands on each drop until the stream ends, `each` says that it is enough, or a signal or `duration` ends it.
pub(super) fn each_drop(
    client: Client,
    duration: Option<Duration>,
    mut each: impl FnMut(Drop) -> Result<bool, Error>,
) -> Result<(), Error> {
    let stopper = client.stopper()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    // Reading a socket blocks: a signal ends it by shutting the socket down.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let token = CancellationToken::new();
                if pipeline::stop_on_signals(&token, duration).is_ok() {
                    token.cancelled().await;
                    stop.store(true, Ordering::Relaxed);
                    // Shut already is as good.
                    let _ = stopper.shutdown(std::net::Shutdown::Both);
                }
            });
        })?;
    for drop in client {
        match drop {
            Ok(drop) => {
                if !each(drop)? {
                    break;
                }
            }
            Err(_) if stopped.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The last drops that pass a filter.
pub(super) struct Tail {
    filter: Filter,
    most: usize,
    drops: VecDeque<Drop>,
}

impl Tail {
    pub(super) fn new(filter: Filter, most: usize) -> Self {
        let drops = VecDeque::new();
        Self {
            filter,
            most,
            drops,
        }
    }

    pub(super) fn push(&mut self, drop: Drop) {
        if self.filter.passes(&drop) {
            self.drops.push_back(drop);
            if self.drops.len() > self.most {
                self.drops.pop_front();
            }
        }
    }

    pub(super) fn into_drops(self) -> impl Iterator<Item = Drop> {
        self.drops.into_iter()
    }
}
