//! How much the pipeline holds, for others to read at any time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::attribute::Attributor;

/// What the sinks' thread holds.
#[derive(Debug)]
pub struct Sizes {
    waiting: watch::Sender<usize>,
    objects: Mutex<Vec<(&'static str, usize)>>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            waiting: watch::Sender::new(0),
            objects: Mutex::default(),
        }
    }
}

impl Sizes {
    /// Drops that wait for their pod to be known.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// Objects of the cluster, by kind.
    pub fn objects(&self) -> Vec<(&'static str, usize)> {
        self.lock().clone()
    }

    pub(super) fn set_waiting(&self, drops: usize) {
        self.waiting.send_if_modified(|waiting| {
            let before = std::mem::replace(waiting, drops);
            before != drops
        });
    }

    pub(super) fn count(&self, attributor: &Attributor) {
        if let Some(cluster) = attributor.cluster() {
            let mut objects = self.lock();
            objects.clear();
            objects.extend(cluster.sizes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, usize)>> {
        // A panic while holding it leaves numbers that are still numbers.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
