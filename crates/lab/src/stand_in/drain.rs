//! Ending without losing a connection.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long new connections are still accepted after SIGTERM. Meanwhile every
/// node learns that this endpoint is terminating; without the wait, clients that
/// chose it just before would be refused. (Images do this with a preStop sleep.)
const ACCEPT_AFTER_TERM: Duration = Duration::from_millis(200);

/// Catches SIGTERM from now on.
pub(super) fn on_term() -> io::Result<Signal> {
    signal(SignalKind::terminate())
}

/// Tells connections to end, and waits for them.
#[derive(Debug)]
pub(super) struct Drain(watch::Sender<bool>);

/// Held by everything that must be finished before the process ends.
#[derive(Clone, Debug)]
pub(super) struct Work(watch::Receiver<bool>);

impl Drain {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn work(&self) -> Work {
        Work(self.0.subscribe())
    }

    /// Returns when SIGTERM came and all [`Work`] is done. How long that may
    /// take is the pod's grace period, which the node loop enforces.
    pub(super) async fn run(self, mut term: Signal) {
        term.recv().await;
        if self.0.receiver_count() > 0 {
            tokio::time::sleep(ACCEPT_AFTER_TERM).await;
        }
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Work {
    /// Returns when it is time to end.
    pub(super) async fn ending(&mut self) {
        // An error means that the drain is gone, and with it the process.
        let _ = self.0.wait_for(|ending| *ending).await;
    }
}
