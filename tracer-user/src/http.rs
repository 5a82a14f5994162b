//! `/metrics`, `/healthz` and `/readyz`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::live::Status;
use crate::kernel::Meter;
use crate::pipeline;
use crate::sink::metrics::{self, Metrics};
use crate::stream::Publisher;

/// What the endpoints answer from.
pub struct Health {
    /// What counts.
    pub metrics: Arc<Metrics>,
    /// The kernel side's own counters.
    pub kernel: Meter,
    /// The pipeline's own counters.
    pub losses: Arc<pipeline::Losses>,
    /// What the pipeline holds.
    pub sizes: Arc<pipeline::Sizes>,
    /// Who keeps the history and the readers of the stream.
    pub stream: Publisher,
    /// Kubernetes Events that are neither written nor given up, where any are written.
    pub events: Option<watch::Receiver<usize>>,
    /// What keeps the cluster's state.
    pub state: State,
    /// Becomes true when everything is counted that was dropped before the start.
    pub caught_up: Option<watch::Receiver<bool>>,
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
    fn sizes(&self) -> metrics::Sizes {
        metrics::Sizes {
            flows: self.kernel.flows(),
            objects: self.sizes.objects(),
            waiting: *self.sizes.waiting().borrow(),
            events: self.events.as_ref().map_or(0, |events| *events.borrow()),
            readers: self.stream.readers(),
            history: self.stream.history(),
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

/// Listens at `address`. Where that is every address of both families, those of IPv4 are enough if there is no
/// IPv6.
///
/// # Errors
/// What the system says.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match bound(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            bound((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever `net.ipv6.bindv6only` says.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a kernel says that was booted without IPv6, or that has none.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
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

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
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
    match health.metrics.render(health.losses(), &health.sizes()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_is_of_both_families_or_of_ipv4_alone() {
        let listener = listen((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = async {
            let (_, from) = listener.accept().await.unwrap();
            from.ip().to_canonical()
        };
        let connect = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let (connected, from) = tokio::join!(connect, accepted);
        connected.unwrap();
        assert_eq!(from, Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn a_port_that_is_taken_is_no_want_of_ipv6() {
        let error = |number| std::io::Error::from_raw_os_error(number);
        assert!(is_without_ipv6(&error(libc::EAFNOSUPPORT)));
        assert!(!is_without_ipv6(&error(libc::EADDRINUSE)));
    }
}
