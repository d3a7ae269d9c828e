//! The recent changes of one collection, in order: what watches read. A watch
//! is a position in this log, so a write costs the same for one watcher and for
//! a hundred.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::object::Object;

/// Events kept per collection. A watcher that is further behind has to list
/// again; 2048 changes are more than a lab with 200 pods makes while starting.
const KEPT: usize = 2048;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// The `type` of a watch event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) change: Change,
    /// The new version; for `Deleted` the last one, with the revision of the
    /// deletion.
    pub(crate) object: Arc<Object>,
    pub(crate) previous: Option<Arc<Object>>,
    frame: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self {
            change,
            object,
            previous,
            frame: OnceLock::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.object.revision
    }

    /// The event as a line of a watch response; encoded once for all watchers.
    pub(crate) fn frame(&self) -> Bytes {
        self.frame
            .get_or_init(|| frame(self.change, &self.object.json))
            .clone()
    }
}

/// One line of a watch response. `object` is JSON.
pub(crate) fn frame(change: Change, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(change.as_str().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

/// The position asked for is older than the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub(crate) struct TooOld {
    pub(crate) asked: u64,
    /// The oldest revision that a watch can start from.
    pub(crate) oldest: u64,
}

#[derive(Debug)]
pub(super) struct Log {
    /// All events with a revision above this are in `events`.
    floor: u64,
    events: VecDeque<Arc<Event>>,
}

impl Log {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            floor,
            events: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() == KEPT
            && let Some(oldest) = self.events.pop_front()
        {
            self.floor = oldest.revision();
        }
        self.events.push_back(Arc::new(event));
    }

    /// Events with a revision above `revision`, oldest first.
    pub(super) fn after(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, TooOld> {
        if revision < self.floor {
            return Err(TooOld {
                asked: revision,
                oldest: self.floor,
            });
        }
        let first = self
            .events
            .partition_point(|event| event.revision() <= revision);
        Ok(self.events.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(revision: u64) -> Event {
        let object = Object::new(json!({"metadata": {"name": "a"}}), revision);
        Event::new(Change::Modified, Arc::new(object), None)
    }

    #[test]
    fn old_events_leave_and_are_missed() {
        let mut log = Log::new(10);
        assert!(log.after(9).is_err());
        for revision in 11..=(10 + KEPT as u64 + 5) {
            log.push(event(revision));
        }
        assert_eq!(log.after(15).map(Iterator::count), Ok(KEPT));
        assert_eq!(
            log.after(14).map(Iterator::count),
            Err(TooOld {
                asked: 14,
                oldest: 15
            })
        );
        let last = log
            .after(10 + KEPT as u64)
            .unwrap()
            .map(|event| event.revision());
        assert_eq!(last.count(), 5);
    }
}
