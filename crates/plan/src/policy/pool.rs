//! Values that many rows share.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Gives equal values the same memory.
#[derive(Clone, Debug)]
pub(super) struct Pool<T> {
    values: HashSet<Arc<T>>,
    /// Size at which values that nobody has any more are thrown out.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            sweep_at: 1024,
        }
    }
}

impl<T: Hash + Eq> Pool<T> {
    pub(super) fn get(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (self.values.len() * 2).max(1024);
        }
        self.values.insert(Arc::clone(value));
        Arc::clone(value)
    }
}
