//! Writes Events to the API server, which may be slow, away or unwilling: nothing else waits for it.

use std::collections::VecDeque;
use std::time::Duration;

use kube::Client;
use prometheus::IntCounterVec;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Waiting;
use super::note::Note;
use super::recorder::Recorder;

/// How long one call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait after a call that failed.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How often one is written that the server forbids.
const TRIES: u32 = 3;
/// Forbidden ones that are kept at most.
const KEPT: usize = 64;

/// Writes what the sink has it write.
#[derive(Debug)]
pub struct Writer {
    node: String,
    notes: mpsc::Receiver<Note>,
    counted: IntCounterVec,
    waiting: Waiting,
    /// The next one, once the server is there again. Others wait in the channel.
    head: Option<Pending>,
    /// Those that the server forbids, oldest first: others need not wait for them.
    forbidden: VecDeque<Pending>,
    /// That the server is not there was said.
    said_away: bool,
    /// That it refuses some was said.
    said_refused: bool,
}

/// One to be written again.
#[derive(Debug)]
struct Pending {
    note: Note,
    /// How often it was forbidden.
    tries: u32,
    at: Instant,
}

/// What to do about one that was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The server is not there, or has enough: the next one would fare no better.
    Away,
    /// Not by us, or not in this namespace; it may be a matter of a right that is on its way.
    Forbidden,
    /// It will never be taken: the server finds fault with it.
    Refused,
    /// Its namespace is gone or on its way.
    Gone,
}

impl Failure {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(answer) => match answer.code {
                403 => Self::Forbidden,
                404 => Self::Gone,
                401 | 408 | 429 | 500.. => Self::Away,
                _ => Self::Refused,
            },
            kube::Error::BuildRequest(_)
            | kube::Error::SerdeError(_)
            | kube::Error::FromUtf8(_) => Self::Refused,
            _ => Self::Away,
        }
    }
}

impl Writer {
    pub(super) fn new(
        node: &str,
        notes: mpsc::Receiver<Note>,
        counted: IntCounterVec,
        waiting: Waiting,
    ) -> Self {
        for result in ["written", "failed", "suppressed"] {
            counted.with_label_values(&[result]);
        }
        Self {
            node: node.to_owned(),
            notes,
            counted,
            waiting,
            head: None,
            forbidden: VecDeque::new(),
            said_away: false,
            said_refused: false,
        }
    }

    /// Takes what waits; how many that were.
    #[cfg(test)]
    pub(super) fn waiting(&mut self) -> usize {
        std::iter::from_fn(|| self.notes.try_recv().ok()).count()
    }

    /// Writes until `stop`, or until the sink is gone.
    pub async fn run(mut self, client: Client, stop: CancellationToken) {
        let mut recorder = Recorder::new(client, &self.node);
        let work = async {
            while let Some(pending) = self.next().await {
                self.write(&mut recorder, pending).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// What to write next, when it is time; `None` when the sink is gone.
    async fn next(&mut self) -> Option<Pending> {
        if let Some(head) = self.head.take() {
            // The channel is bounded, and what it does not take is counted: waiting costs nothing.
            tokio::time::sleep_until(head.at).await;
            return Some(head);
        }
        let again = self.forbidden.front().map(|pending| pending.at);
        let again = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = again => self.forbidden.pop_front(),
            note = self.notes.recv() => {
                let at = Instant::now();
                note.map(|note| Pending { note, tries: 0, at })
            }
        }
    }

    async fn write(&mut self, recorder: &mut Recorder, mut pending: Pending) {
        let call = recorder.write(&pending.note);
        let (failure, problem) = match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(())) => {
                self.done("written");
                self.said_away = false;
                return;
            }
            Ok(Err(error)) => (Failure::of(&error), error.to_string()),
            Err(_) => (Failure::Away, "no answer within 10 s".to_owned()),
        };
        pending.at = Instant::now() + AFTER_FAILURE;
        match failure {
            Failure::Away => {
                if !std::mem::replace(&mut self.said_away, true) {
                    tracing::warn!(
                        problem,
                        "Kubernetes Events cannot be written, and will be tried again; nothing else suffers \
                         (--no-events turns them off)"
                    );
                }
                self.head = Some(pending);
            }
            Failure::Forbidden => {
                self.say_refused(&problem);
                pending.tries += 1;
                if pending.tries == TRIES {
                    self.give_up();
                    return;
                }
                if self.forbidden.len() == KEPT {
                    self.forbidden.pop_front();
                    self.give_up();
                }
                self.forbidden.push_back(pending);
            }
            Failure::Refused => {
                self.say_refused(&problem);
                self.give_up();
            }
            Failure::Gone => self.give_up(),
        }
    }

    fn give_up(&self) {
        self.done("failed");
    }

    fn done(&self, result: &str) {
        self.counted.with_label_values(&[result]).inc();
        self.waiting.fewer();
    }

    /// Once: a namespace that is on its way out forbids, too, and such come and go.
    fn say_refused(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.said_refused, true) {
            tracing::warn!(
                problem,
                "the API server refuses a Kubernetes Event; others are written all the same \
                 (tracer_kubernetes_events_total counts; --no-events turns them off)"
            );
        }
    }
}
