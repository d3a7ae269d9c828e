//! What runs, for those who want to look inside: logs and exec.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::exec::Enter;
use super::log::Log;

/// All pods of the lab that have or had a container, by uid.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<String, Pod>>);

/// Containers by name.
type Pod = BTreeMap<String, Entry>;

/// One container's last run.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where its logs are.
    pub(super) dir: PathBuf,
    /// Number of the run, from 0.
    pub(super) run: i32,
    /// While it runs: the way in and the log.
    pub(super) running: Option<(Arc<Enter>, Arc<Log>)>,
}

impl Registry {
    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<String, Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn started(&self, uid: &str, container: &str, entry: Entry) {
        self.pods()
            .entry(uid.to_owned())
            .or_default()
            .insert(container.to_owned(), entry);
    }

    pub(super) fn ended(&self, uid: &str, container: &str) {
        if let Some(entry) = self
            .pods()
            .get_mut(uid)
            .and_then(|pod| pod.get_mut(container))
        {
            entry.running = None;
        }
    }

    pub(super) fn removed(&self, uid: &str) {
        self.pods().remove(uid);
    }

    pub(super) fn get(&self, uid: &str, container: &str) -> Option<Entry> {
        self.pods().get(uid)?.get(container).cloned()
    }
}
