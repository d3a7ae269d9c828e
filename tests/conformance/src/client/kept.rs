//! Sockets that outlive the request that made them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::attempt::Asking;

/// Kept sockets by the numbers that the suite gave them.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<u64, Arc<Mutex<Asking>>>>);

impl Kept {
    pub(super) fn keep(&self, number: u64, asking: Asking) {
        self.all().insert(number, Arc::new(Mutex::new(asking)));
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Mutex<Asking>>> {
        self.all().get(&number).cloned()
    }

    pub(super) fn close(&self, number: u64) {
        self.all().remove(&number);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Mutex<Asking>>>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }
}
