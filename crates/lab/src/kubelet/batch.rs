//! When init containers may start.
//!
//! An init container mostly waits, by polling, for pods that come up at the same
//! time: with the usual pause of some seconds between two polls, the first one
//! decides how long a lab takes. So the init containers of a pod start when the
//! other pods of the batch are ready, or when none has become so for a second.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// How long init containers are held while nothing happens, and at most.
const PATIENCE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

/// Nobody new may have come for so long; also time for services to learn of the
/// pods that are ready.
const SETTLED: Duration = Duration::from_millis(60);

/// The pods that others may want to wait for.
#[derive(Debug, Default)]
pub(super) struct Batch(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// By uid: not ready yet.
    starting: HashSet<String>,
    /// How many have come so far.
    arrivals: u64,
}

impl Batch {
    /// A pod (by uid) without init containers is about to start.
    pub(super) fn arrived(&self, uid: &str) {
        self.0.send_modify(|state| {
            state.starting.insert(uid.to_owned());
            state.arrivals += 1;
        });
    }

    /// A pod is ready, or there is no more reason to wait for it.
    pub(super) fn settled(&self, uid: &str) {
        self.0.send_if_modified(|state| state.starting.remove(uid));
    }

    /// Waits for the batch.
    pub(super) async fn wait(&self) {
        let limit = Instant::now() + LIMIT;
        let mut states = self.0.subscribe();
        loop {
            let (waiting, arrivals) = {
                let state = states.borrow_and_update();
                (!state.starting.is_empty(), state.arrivals)
            };
            if waiting {
                let patience = limit.min(Instant::now() + PATIENCE);
                match timeout_at(patience, states.changed()).await {
                    Ok(Ok(())) => {}
                    _ => return,
                }
            } else {
                sleep(SETTLED).await;
                if self.0.borrow().arrivals == arrivals || Instant::now() >= limit {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(300);

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_others_but_not_for_long() {
        let batch = Batch::default();
        let start = Instant::now();
        batch.wait().await;
        assert_eq!(start.elapsed(), SETTLED);

        batch.arrived("a");
        let start = Instant::now();
        let others = async {
            sleep(STEP).await;
            batch.settled("a");
        };
        tokio::join!(batch.wait(), others);
        assert_eq!(start.elapsed(), STEP + SETTLED);

        batch.arrived("b");
        let start = Instant::now();
        batch.wait().await;
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_pods_become_ready() {
        let batch = Batch::default();
        let pods: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        pods.iter().for_each(|pod| batch.arrived(pod));
        let start = Instant::now();
        let some = async {
            for pod in &pods[..8] {
                sleep(STEP).await;
                batch.settled(pod);
            }
        };
        tokio::join!(batch.wait(), some);
        assert_eq!(start.elapsed(), 8 * STEP + PATIENCE);

        let start = Instant::now();
        let endless = async {
            for pod in &pods[8..] {
                sleep(STEP).await;
                batch.settled(pod);
            }
        };
        tokio::select! {
            () = batch.wait() => {}
            () = endless => {}
        }
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn late_arrivals_count() {
        let batch = Batch::default();
        let start = Instant::now();
        let others = async {
            sleep(SETTLED / 2).await;
            batch.arrived("late");
            sleep(STEP).await;
            batch.settled("late");
        };
        tokio::join!(batch.wait(), others);
        assert_eq!(start.elapsed(), SETTLED / 2 + STEP + SETTLED);
    }
}
