//! Follows the cluster: one task asks what there is and starts one for each resource, one asks whether the
//! server is still there.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connect::{ConnectError, Found};
use super::discover::Discovery;
use super::follow::Out;
use super::link::Link;
use super::snapshot::Recorder;
use super::status::Status;
use super::update::Update;

/// Changes under way between the tasks and the one who keeps the state.
const UNDER_WAY: usize = 256;

/// Changes as they come.
#[derive(Debug)]
pub struct Updates {
    /// The changes, for whoever keeps the state.
    pub receiver: mpsc::Receiver<Update>,
    /// How current they are.
    pub status: Status,
}

/// Follows the cluster until `stop` is cancelled. `wake` is called after each change; `recorder` has each
/// written down.
///
/// The server need not be there yet.
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn watch(
    found: &Found,
    stop: CancellationToken,
    wake: Arc<dyn Fn() + Send + Sync>,
    recorder: Option<Recorder>,
) -> Result<Updates, ConnectError> {
    Ok(over(Link::open(found).await?, stop, wake, recorder))
}

pub(super) fn over(
    link: Link,
    stop: CancellationToken,
    wake: Arc<dyn Fn() + Send + Sync>,
    recorder: Option<Recorder>,
) -> Updates {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let status = Status::default();
    let link = Arc::new(link);
    let discovery = Discovery::new(
        Arc::clone(&link),
        status.clone(),
        Out {
            sender,
            wake,
            recorder: recorder.clone(),
        },
        stop.clone(),
    );
    let own = status.clone();
    tokio::spawn(async move { link.heartbeat(own, recorder, stop).await });
    tokio::spawn(discovery.run());
    Updates { receiver, status }
}
