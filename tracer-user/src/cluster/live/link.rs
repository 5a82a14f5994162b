//! The connection to the API server, made anew where its credentials are no longer taken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::connect::{ConnectError, Found, cause, connect};
use super::snapshot::Recorder;
use super::status::{Health, Status};

/// How often the server is asked whether it is there, and how long it may take to say so.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A client, and where it came from.
pub(super) struct Link {
    client: Mutex<Client>,
    url: String,
    /// `None`: there is nothing to read again.
    found: Option<Found>,
    /// Somebody doubts that the server takes us.
    doubted: Notify,
    /// The server takes us again: for how long it had not.
    back: watch::Sender<Duration>,
}

impl Link {
    pub(super) async fn open(found: &Found) -> Result<Self, ConnectError> {
        let (client, url) = connect(found).await?;
        Ok(Self::of(client, url, Some(found.clone())))
    }

    pub(super) fn of(client: Client, url: String, found: Option<Found>) -> Self {
        Self {
            client: Mutex::new(client),
            url,
            found,
            doubted: Notify::new(),
            back: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Client> {
        // A client is never left half written.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client as it is now.
    pub(super) fn client(&self) -> Client {
        self.lock().clone()
    }

    /// Has the heartbeat ask at once.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Changes when the server answers again after it had not, or had refused us, to how long that was.
    pub(super) fn back(&self) -> watch::Receiver<Duration> {
        self.back.subscribe()
    }

    /// Reads the configuration again: a kubeconfig may have been renewed, and a service account's token,
    /// which the client keeps for a minute.
    async fn renew(&self) {
        let Some(found) = &self.found else { return };
        match connect(found).await {
            Ok((client, _)) => *self.lock() = client,
            Err(error) => tracing::debug!(%error, "no new credentials"),
        }
    }

    /// Whether the server answers at all: a watch that is quiet looks the same either way.
    pub(super) async fn heartbeat(
        &self,
        status: Status,
        recorder: Option<Recorder>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.doubted.notified() => {}
                () = stop.cancelled() => return,
            }
            let client = self.client();
            let asked = tokio::time::timeout(ANSWER_WITHIN, client.apiserver_version()).await;
            match asked {
                Ok(Err(kube::Error::Api(answer))) if answer.code == 401 => {
                    self.refused(&status, &answer.message);
                    self.renew().await;
                }
                // Any other refusal is an answer; a failure (of a proxy, of one that is starting) is none.
                Ok(Err(kube::Error::Api(answer))) if answer.code < 500 => self.answered(&status),
                Ok(Ok(_)) => self.answered(&status),
                Ok(Err(error)) => self.silent(&status, &cause(&error)),
                Err(_) => self.silent(&status, "no answer within 5 s"),
            }
            if let Some(recorder) = &recorder
                && matches!(status.health(), Health::Synced | Health::Partial(_))
            {
                recorder.as_of(Timestamp::now()).await;
            }
        }
    }

    fn answered(&self, status: &Status) {
        if let Some(away) = status.answered(Timestamp::now()) {
            tracing::info!(server = self.url, "the API server answers again");
            self.back.send_replace(away);
        }
    }

    fn refused(&self, status: &Status, problem: &str) {
        if status.refused(problem.to_owned()) {
            tracing::warn!(
                server = self.url,
                problem,
                "the API server does not take our credentials (401): working from what was last known; once \
                 they are renewed they are read again by themselves"
            );
        }
    }

    fn silent(&self, status: &Status, problem: &str) {
        if status.silent(problem.to_owned()) {
            tracing::warn!(
                server = self.url,
                problem,
                "the API server does not answer: working from what was last known"
            );
        }
    }
}
