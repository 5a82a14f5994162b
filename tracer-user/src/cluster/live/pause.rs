//! How long to wait before trying again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// After this long without a failure the next one is the first.
const FORGIVEN: Duration = Duration::from_mins(1);

/// Pauses, each twice as long as the one before it.
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
    last: Option<Instant>,
}

impl Pauses {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
            last: None,
        }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Duration {
        let now = Instant::now();
        let begins = self.last.is_none_or(|last| now - last > FORGIVEN);
        let pause = if begins { self.first } else { self.next };
        self.next = (pause * 2).min(self.longest);
        self.last = Some(now + pause);
        some_of(pause)
    }
}

/// From half of `pause` to all of it, by chance: what hits one agent mostly hits all of them, and they are not
/// to come back at once.
pub(super) fn some_of(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() % 1024;
    let half = pause / 2;
    half + half * u32::try_from(chance).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_limit_and_begin_anew_after_a_quiet_minute() {
        let mut pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(5));
        for wanted in [1, 2, 4, 5, 5] {
            let wanted = Duration::from_secs(wanted);
            let pause = pauses.next();
            assert!(pause >= wanted / 2 && pause <= wanted, "{pause:?}");
        }
        tokio::time::advance(Duration::from_secs(5) + FORGIVEN).await;
        assert!(pauses.next() > Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(6) + FORGIVEN).await;
        assert!(pauses.next() <= Duration::from_secs(1));
    }
}
