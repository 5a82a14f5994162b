//! Writes Events to the API server, which may be slow, away or unwilling: nothing else waits for it.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::note::Note;

/// Who writes, as the API shows it.
const CONTROLLER: &str = "tracer";
/// How long one call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Kept while the server does not take them.
const KEPT: usize = 64;

/// Writes what the sink has it write.
#[derive(Debug)]
pub struct Writer {
    reporter: Reporter,
    notes: mpsc::Receiver<Note>,
    counted: IntCounterVec,
    /// Written again once the server takes them.
    kept: VecDeque<Note>,
    /// The last call failed.
    failing: bool,
    /// That they cannot be written was said.
    said: bool,
}

impl Writer {
    pub(super) fn new(node: &str, notes: mpsc::Receiver<Note>, counted: IntCounterVec) -> Self {
        for result in ["written", "failed", "suppressed"] {
            counted.with_label_values(&[result]);
        }
        Self {
            reporter: Reporter {
                controller: CONTROLLER.to_owned(),
                instance: Some(node.to_owned()),
            },
            notes,
            counted,
            kept: VecDeque::new(),
            failing: false,
            said: false,
        }
    }

    /// Takes what waits; how many that were.
    #[cfg(test)]
    pub(super) fn waiting(&mut self) -> usize {
        std::iter::from_fn(|| self.notes.try_recv().ok()).count()
    }

    /// Writes until `stop`, or until the sink is gone.
    pub async fn run(mut self, client: Client, stop: CancellationToken) {
        let recorder = Recorder::new(client, self.reporter.clone());
        loop {
            if self.failing {
                // The queue is bounded, and what it does not take is counted: waiting costs nothing.
                tokio::select! {
                    () = tokio::time::sleep(AFTER_FAILURE) => self.failing = false,
                    () = stop.cancelled() => return,
                }
            }
            let note = match self.kept.pop_front() {
                Some(note) => note,
                None => tokio::select! {
                    note = self.notes.recv() => match note {
                        Some(note) => note,
                        None => return,
                    },
                    () = stop.cancelled() => return,
                },
            };
            tokio::select! {
                () = self.write(&recorder, note) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn write(&mut self, recorder: &Recorder, note: Note) {
        let (event, about) = made_of(&note);
        let call = recorder.publish(&event, &about);
        let problem = match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(())) => {
                self.counted.with_label_values(&["written"]).inc();
                self.said = false;
                return;
            }
            // Its namespace is gone or on its way: it will not be taken later either.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => {
                self.counted.with_label_values(&["failed"]).inc();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 10 s".to_owned(),
        };
        self.failing = true;
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                problem,
                "Kubernetes Events cannot be written, and will be tried again; nothing else suffers \
                 (--no-events turns them off)"
            );
        }
        if self.kept.len() == KEPT {
            self.kept.pop_back();
            self.counted.with_label_values(&["failed"]).inc();
        }
        // First again, so that they come in the order they were told in.
        self.kept.push_front(note);
    }
}

fn made_of(note: &Note) -> (Event, ObjectReference) {
    let event = Event {
        type_: EventType::Warning,
        reason: note.reason.clone(),
        note: Some(note.text.clone()),
        action: note.action.to_owned(),
        secondary: None,
    };
    let about = ObjectReference {
        api_version: Some(note.about.api_version.to_owned()),
        kind: Some(note.about.kind.to_owned()),
        namespace: Some(note.about.namespace.clone()),
        name: Some(note.about.name.clone()),
        uid: note.about.uid.clone(),
        ..ObjectReference::default()
    };
    (event, about)
}
