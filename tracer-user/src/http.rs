//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::live::Status;
use crate::kernel::Meter;
use crate::pipeline;
use crate::sink::metrics::{self, Metrics};

/// What the endpoints answer from.
pub struct Health {
    metrics: Arc<Metrics>,
    kernel: Meter,
    losses: Arc<pipeline::Losses>,
    state: State,
    caught_up: Option<watch::Receiver<bool>>,
}

/// Where the cluster state comes from, and how current it is.
#[derive(Clone, Debug)]
pub enum State {
    /// There is none: addresses only.
    None,
    /// From files, as they were.
    Fixed,
    /// From the API server.
    Live(Status),
}

impl State {
    /// Whether it is whole and current, as far as can be known.
    pub fn is_synced(&self) -> bool {
        match self {
            Self::None => false,
            Self::Fixed => true,
            Self::Live(status) => status.health().is_synced(),
        }
    }

    /// What is to be said of it where it is not whole and current.
    pub fn not_current(&self) -> Option<String> {
        (!self.is_synced()).then(|| self.to_string())
    }

    /// Until when the cluster was followed; `None` where that is not known, or files do not change.
    fn followed_until(&self) -> Option<Timestamp> {
        match self {
            Self::None | Self::Fixed => None,
            Self::Live(status) => status.followed_until(),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("without cluster state (addresses only)"),
            Self::Fixed => f.write_str("cluster state from files"),
            Self::Live(status) => status.fmt(f),
        }
    }
}

impl Health {
    /// From what counts and what keeps the cluster's state. `caught_up`: becomes true when everything is
    /// counted that was dropped before the start.
    pub fn new(
        metrics: Arc<Metrics>,
        kernel: Meter,
        losses: Arc<pipeline::Losses>,
        state: State,
        caught_up: Option<watch::Receiver<bool>>,
    ) -> Self {
        Self {
            metrics,
            kernel,
            losses,
            state,
            caught_up,
        }
    }

    fn losses(&self) -> metrics::Losses {
        let cost = self.kernel.cost();
        // Counters that cannot be read for once are read at the next scrape.
        let counters = self.kernel.counters().unwrap_or_default();
        metrics::Losses {
            kernel: counters.lost(),
            roomless: counters.overflowed,
            decode: self.losses.decode(),
            cost: (
                u64::try_from(cost.time.as_nanos()).unwrap_or(u64::MAX),
                cost.runs,
            ),
        }
    }
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route(
            "/",
            get(async || "tracer agent: /metrics /healthz /readyz\n"),
        )
        .route("/metrics", get(render))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(health);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// How long a scrape waits at most; Prometheus gives up after ten seconds.
const CATCH_UP: Duration = Duration::from_secs(8);

async fn render(extract::State(health): extract::State<Arc<Health>>) -> Response {
    // A counter that is lower than at the last scrape counts all over again.
    if let Some(mut caught_up) = health.caught_up.clone() {
        let caught_up = caught_up.wait_for(|done| *done);
        // The sender is gone at the end only; then the counters are whole, too.
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            let why = "not everything is counted yet that was dropped before the start\n";
            return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        }
    }
    let until = health.state.followed_until();
    health.metrics.set_state(health.state.is_synced(), until);
    match health.metrics.render(health.losses()) {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The agent serves only once it is attached, so answering at all is half of being ready; working
/// without cluster state is degraded, not unready, and is said.
async fn ready(extract::State(health): extract::State<Arc<Health>>) -> String {
    match health.state.not_current() {
        None => "ok\n".to_owned(),
        Some(state) => format!("ok: attached, {state}\n"),
    }
}
