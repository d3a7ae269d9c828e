//! The names in a file of the run directory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use ripstop_dns::Zone;
use tracing::warn;

/// Between looks whether there is something to write: what is lost when an agent
/// is killed in the very moment in which the API goes away.
const INTERVAL: Duration = Duration::from_secs(2);
/// Writing takes part of a second of CPU time at 10,000 services: changes that
/// come one after the other are written together.
const PAUSE: Duration = Duration::from_secs(8);

pub(super) struct Kept {
    path: PathBuf,
    failed: AtomicBool,
}

impl Kept {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn restore(&self, zone: &Zone) -> Result<bool> {
        zone.restore(&self.path)
            .with_context(|| self.path.display().to_string())
    }

    /// Writes the names when they have changed, for ever.
    pub(super) fn follow(&self, zone: &Zone) -> ! {
        let mut written = None;
        loop {
            let changes = zone.changes();
            if zone.is_known() && written != Some(changes) {
                match zone.save(&self.path) {
                    Ok(()) => written = Some(changes),
                    Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                        let path = self.path.display();
                        warn!(%path, %error, "names are not kept for a start without the API");
                    }
                    Err(_) => {}
                }
                std::thread::sleep(PAUSE);
            }
            std::thread::sleep(INTERVAL);
        }
    }
}
