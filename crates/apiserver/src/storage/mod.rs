//! The objects, behind one global revision. Knows nothing about kinds: a
//! resource is a string, an object is JSON with a name.
//!
//! One lock for everything: an operation holds it for microseconds, and one
//! revision for all collections is what makes `resourceVersion` comparable.

mod journal;
mod log;
mod object;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;
use tokio::sync::watch;

pub use journal::OpenError;
use journal::{Entry, Journal, Record};
use log::Log;
pub(crate) use log::{Change, Event, TooOld, frame};
pub(crate) use object::{Key, Object};

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("the object exists already")]
    Exists,
    #[error("the object is not there")]
    Missing,
    #[error("the object has been modified")]
    Changed,
    #[error("cannot write the journal: {0}")]
    Journal(#[from] std::io::Error),
}

/// Shared by all readers and writers of one lab.
#[derive(Debug)]
pub(crate) struct Storage {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    collections: HashMap<String, Collection>,
    journal: Option<Journal>,
    /// Bytes of all objects as JSON.
    live: u64,
    /// Revision at which the process started; older history is not known.
    opened_at: u64,
}

#[derive(Debug)]
struct Collection {
    objects: BTreeMap<Key, Arc<Object>>,
    log: Log,
    /// The revision of the latest event; wakes watchers.
    latest: watch::Sender<u64>,
}

impl Collection {
    fn new(revision: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: Log::new(revision),
            latest: watch::Sender::new(revision),
        }
    }

    /// Objects in a namespace, or all; in the order of lists.
    fn range(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Object>> {
        let start = Key::new(namespace.unwrap_or_default(), "");
        self.objects
            .range(start..)
            .take_while(move |(key, _)| namespace.is_none_or(|wanted| key.namespace == wanted))
            .map(|(_, object)| object)
    }
}

/// The events that a watch has not seen yet.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) events: Vec<Arc<Event>>,
    /// Everything up to this revision has been seen when `events` are.
    pub(crate) revision: u64,
}

impl Storage {
    /// Opens the journal and reads the objects back; without a path the objects
    /// live in memory only.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, OpenError> {
        let mut revision = 0;
        let mut objects: HashMap<String, BTreeMap<Key, Arc<Object>>> = HashMap::new();
        let replay = |record: Record| {
            revision = revision.max(record.rv);
            let collection = objects.entry(record.resource).or_default();
            if let Some(value) = record.object.filter(|value| value["metadata"].is_object()) {
                let object = Object::new(value, record.rv);
                collection.insert(object.key(), Arc::new(object));
            } else if let Some((namespace, name)) = record.removed {
                collection.remove(&Key { namespace, name });
            }
        };
        let journal = path.map(|path| Journal::open(path, replay)).transpose()?;
        // Kubernetes never shows 0: to clients it means "any version".
        let revision = revision.max(1);
        let mut live = 0;
        let mut collections = HashMap::new();
        for (resource, objects) in objects {
            live += objects
                .values()
                .map(|object| object.json.len() as u64)
                .sum::<u64>();
            collections.insert(
                resource,
                Collection {
                    objects,
                    ..Collection::new(revision)
                },
            );
        }
        let state = State {
            revision,
            collections,
            journal,
            live,
            opened_at: revision,
        };
        Ok(Self {
            state: RwLock::new(state),
        })
    }

    /// The revision of the latest write.
    pub(crate) fn revision(&self) -> u64 {
        self.read().revision
    }

    pub(crate) fn get(&self, resource: &str, key: &Key) -> Option<Arc<Object>> {
        self.read()
            .collections
            .get(resource)?
            .objects
            .get(key)
            .cloned()
    }

    /// The objects as they are now, and the revision that this is.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let state = self.read();
        let objects = state
            .collections
            .get(resource)
            .map(|collection| collection.range(namespace).cloned().collect())
            .unwrap_or_default();
        (objects, state.revision)
    }

    /// The objects as they were at an earlier revision: what the later pages of
    /// a list show. The event log is undone from its end.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<Arc<Object>>, TooOld> {
        let state = self.read();
        let Some(collection) = state.collections.get(resource) else {
            return Ok(Vec::new());
        };
        let mut objects: BTreeMap<Key, Arc<Object>> = collection
            .range(namespace)
            .map(|object| (object.key(), Arc::clone(object)))
            .collect();
        for event in collection.log.after(revision)?.rev() {
            let key = event.object.key();
            if namespace.is_some_and(|wanted| key.namespace != wanted) {
                continue;
            }
            match &event.previous {
                Some(previous) => objects.insert(key, Arc::clone(previous)),
                None => objects.remove(&key),
            };
        }
        Ok(objects.into_values().collect())
    }

    /// Whether any object is in the namespace, and in which collection.
    pub(crate) fn first_in_namespace(&self, namespace: &str) -> Option<String> {
        let state = self.read();
        state
            .collections
            .iter()
            .find(|(_, collection)| collection.range(Some(namespace)).next().is_some())
            .map(|(resource, _)| resource.clone())
    }

    /// Wakes when the collection changes.
    pub(crate) fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        if let Some(collection) = self.read().collections.get(resource) {
            return collection.latest.subscribe();
        }
        self.write().collection(resource).latest.subscribe()
    }

    /// Events of a collection after `revision`.
    pub(crate) fn news(&self, resource: &str, revision: u64) -> Result<News, TooOld> {
        let state = self.read();
        let events = match state.collections.get(resource) {
            Some(collection) => collection.log.after(revision)?.cloned().collect(),
            None if revision < state.opened_at => {
                return Err(TooOld {
                    asked: revision,
                    oldest: state.opened_at,
                });
            }
            None => Vec::new(),
        };
        Ok(News {
            events,
            revision: state.revision,
        })
    }

    /// Stores a new object.
    pub(crate) fn create(&self, resource: &str, value: Value) -> Result<Arc<Object>, CommitError> {
        let key = Key::of(&value);
        let mut state = self.write();
        if state.collection(resource).objects.contains_key(&key) {
            return Err(CommitError::Exists);
        }
        state.put(resource, key, value, None)
    }

    /// Stores a new version of an object, if it still has the revision that the
    /// new version was made from.
    pub(crate) fn replace(
        &self,
        resource: &str,
        value: Value,
        expected: u64,
    ) -> Result<Arc<Object>, CommitError> {
        let key = Key::of(&value);
        let mut state = self.write();
        let current = state.current(resource, &key, expected)?;
        state.put(resource, key, value, Some(current))
    }

    /// Removes an object, if it still has that revision. Returns its last
    /// version, with the revision of the removal.
    pub(crate) fn remove(
        &self,
        resource: &str,
        key: &Key,
        expected: u64,
    ) -> Result<Arc<Object>, CommitError> {
        let mut state = self.write();
        let current = state.current(resource, key, expected)?;
        let revision = state.revision + 1;
        state.append(
            revision,
            Entry::Removed(resource, &key.namespace, &key.name),
        )?;
        let last = Arc::new(Object::new(current.value.clone(), revision));
        state.live -= current.json.len() as u64;
        let collection = state.collection(resource);
        collection.objects.remove(key);
        collection.log.push(Event::new(
            Change::Deleted,
            Arc::clone(&last),
            Some(current),
        ));
        collection.latest.send_replace(revision);
        Ok(last)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while holding the lock leaves at worst an unsent wake-up.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn collection(&mut self, resource: &str) -> &mut Collection {
        if !self.collections.contains_key(resource) {
            // Nothing happened to it since the process started.
            self.collections
                .insert(resource.to_owned(), Collection::new(self.opened_at));
        }
        self.collections.get_mut(resource).expect("inserted above")
    }

    fn current(
        &mut self,
        resource: &str,
        key: &Key,
        expected: u64,
    ) -> Result<Arc<Object>, CommitError> {
        let current = self
            .collection(resource)
            .objects
            .get(key)
            .ok_or(CommitError::Missing)?;
        if current.revision == expected {
            Ok(Arc::clone(current))
        } else {
            Err(CommitError::Changed)
        }
    }

    fn put(
        &mut self,
        resource: &str,
        key: Key,
        value: Value,
        previous: Option<Arc<Object>>,
    ) -> Result<Arc<Object>, CommitError> {
        let revision = self.revision + 1;
        let object = Arc::new(Object::new(value, revision));
        self.append(revision, Entry::Put(resource, &object.json))?;
        self.live += object.json.len() as u64;
        self.live -= previous
            .as_ref()
            .map_or(0, |previous| previous.json.len() as u64);
        let change = if previous.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        let collection = self.collection(resource);
        collection.objects.insert(key, Arc::clone(&object));
        collection
            .log
            .push(Event::new(change, Arc::clone(&object), previous));
        collection.latest.send_replace(revision);
        Ok(object)
    }

    /// Writes the journal first: what cannot be kept does not happen.
    fn append(&mut self, revision: u64, entry: Entry<'_>) -> Result<(), CommitError> {
        if let Some(journal) = &mut self.journal {
            if journal.wants_compaction(self.live) {
                let entries = self.collections.iter().flat_map(|(resource, collection)| {
                    collection
                        .objects
                        .values()
                        .map(|object| (object.revision, Entry::Put(resource, &object.json)))
                });
                journal.compact(self.revision, entries)?;
            }
            journal.append(revision, entry)?;
        }
        self.revision = revision;
        Ok(())
    }
}
