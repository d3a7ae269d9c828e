//! When init containers may start.
//!
//! An init container mostly waits, by polling, for pods that come up at the same
//! time: with the usual pause of some seconds between two polls, the first one
//! decides how long a lab takes. So the init containers of a pod start when the
//! other pods of the batch are ready, or after a second.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The longest that init containers are held.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nobody new may have come for so long; also time for services to learn of the
/// pods that are ready.
const SETTLED: Duration = Duration::from_millis(60);

/// The pods that others may want to wait for.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Not ready yet, and a count of arrivals.
    starting: watch::Sender<(HashSet<String>, u64)>,
}

impl Batch {
    /// A pod (by uid) without init containers is about to start.
    pub(super) fn arrived(&self, uid: &str) {
        self.starting.send_modify(|(pods, arrivals)| {
            pods.insert(uid.to_owned());
            *arrivals += 1;
        });
    }

    /// A pod is ready, or there is no more reason to wait for it.
    pub(super) fn settled(&self, uid: &str) {
        self.starting.send_if_modified(|(pods, _)| pods.remove(uid));
    }

    /// Waits for the batch.
    pub(super) async fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut starting = self.starting.subscribe();
        while Instant::now() < deadline {
            let all_ready = async {
                let state = starting.wait_for(|(pods, _)| pods.is_empty()).await;
                state.map(|state| state.1)
            };
            let Ok(Ok(arrivals)) = timeout_at(deadline, all_ready).await else {
                return;
            };
            tokio::select! {
                () = sleep(SETTLED) => {}
                () = sleep_until(deadline) => {}
            }
            if self.starting.borrow().1 == arrivals {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_others_but_not_for_long() {
        let batch = Batch::default();
        let start = Instant::now();
        batch.wait().await;
        assert_eq!(start.elapsed(), SETTLED);

        batch.arrived("a");
        let start = Instant::now();
        let others = async {
            sleep(Duration::from_millis(300)).await;
            batch.settled("a");
        };
        tokio::join!(batch.wait(), others);
        assert_eq!(start.elapsed(), Duration::from_millis(300) + SETTLED);

        batch.arrived("b");
        let start = Instant::now();
        batch.wait().await;
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn late_arrivals_count() {
        let batch = Batch::default();
        let start = Instant::now();
        let others = async {
            sleep(SETTLED / 2).await;
            batch.arrived("late");
            sleep(Duration::from_millis(100)).await;
            batch.settled("late");
        };
        tokio::join!(batch.wait(), others);
        assert!(start.elapsed() > Duration::from_millis(150));
    }
}
