//! How long a container that ends waits before it is started again.

use std::time::{Duration, Instant};

/// kubelet's: the first restart is immediate, then 10 s doubling to 5 min.
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

/// A container that ran for so long starts anew without the past held against it.
const FORGIVEN: Duration = Duration::from_secs(600);

/// The waits of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    /// To wait after the next end; `None` before the first.
    next: Option<Duration>,
    /// The wait after the last end.
    held: Duration,
    /// Not to be started before.
    until: Option<Instant>,
}

impl Backoff {
    /// The container ended at `now` after it had run for `ran`.
    pub(super) fn ended(&mut self, now: Instant, ran: Duration) {
        if ran >= FORGIVEN {
            self.next = None;
        }
        self.held = self.next.unwrap_or_default();
        self.until = Some(now + self.held);
        self.next = Some(self.next.map_or(INITIAL, |delay| (delay * 2).min(MAX)));
    }

    /// When it may start, if that is after `now`.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    /// The whole wait after the last end, for messages.
    pub(super) fn held(&self) -> Duration {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            backoff.ended(now, Duration::from_secs(1));
            waits.push(backoff.wait(now).map_or(0, |until| (until - now).as_secs()));
            assert_eq!(backoff.held().as_secs(), *waits.last().unwrap());
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        backoff.ended(now, FORGIVEN);
        assert_eq!(backoff.wait(now), None);
    }
}
