//! The in-process client: typed objects, no HTTP, the same admission.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Status;
use crate::config::ClusterConfig;
use crate::kinds::Part;
use crate::registry::{DeleteOptions, Registry, Resource, Update, WriteOptions};
use crate::storage::{Change, Key, Object, OpenError};

/// A type that the client can store: every k8s-openapi kind with metadata.
pub trait Stored:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Stored for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The objects of a cluster. Clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    registry: Arc<Registry>,
}

impl Store {
    /// Opens the journal, or keeps objects in memory only; with the settings of
    /// a single-stack lab.
    pub fn open(journal: Option<&Path>) -> Result<Self, OpenError> {
        Self::open_with(journal, ClusterConfig::default())
    }

    /// Creates the namespaces and objects that every cluster has, if missing.
    pub fn open_with(journal: Option<&Path>, config: ClusterConfig) -> Result<Self, OpenError> {
        Ok(Self {
            registry: Arc::new(Registry::open(journal, config)?),
        })
    }

    pub fn client(&self) -> Client {
        Client {
            registry: Arc::clone(&self.registry),
        }
    }
}

/// Reads and writes typed objects. Every call is in memory (a write adds one
/// `write(2)` to the journal), so none blocks for long.
#[derive(Clone, Debug)]
pub struct Client {
    registry: Arc<Registry>,
}

impl Client {
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Objects of one namespace or of all, ordered by namespace and name.
    pub fn list<K: Stored>(&self, namespace: Option<&str>) -> Vec<K> {
        self.list_shared(namespace)
            .iter()
            .map(|object| K::clone(object))
            .collect()
    }

    /// Like [`Client::list`] without copying the objects.
    pub fn list_shared<K: Stored>(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        let Ok(resource) = self.resource::<K>() else {
            return Vec::new();
        };
        let (objects, _) = self.registry.storage.list(&resource.collection, namespace);
        objects.iter().filter_map(|object| decode(object)).collect()
    }

    pub fn get<K: Stored>(&self, namespace: Option<&str>, name: &str) -> Option<K> {
        let resource = self.resource::<K>().ok()?;
        let key = Key::new(namespace.unwrap_or_default(), name);
        let object = self.registry.storage.get(&resource.collection, &key)?;
        decode(&object).map(Arc::unwrap_or_clone)
    }

    /// The namespace is the one in the metadata.
    pub fn create<K: Stored>(&self, object: &K) -> Result<K, Status> {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        let options = WriteOptions::default();
        let written = self.registry.create(
            &*self.resource::<K>()?,
            namespace,
            encode(object)?,
            &options,
        )?;
        typed(&written.object)
    }

    /// Everything but the status. A conflict (409) if `metadata.resourceVersion`
    /// is set and not the newest.
    pub fn update<K: Stored>(&self, object: &K) -> Result<K, Status> {
        self.write(object, Part::Main)
    }

    pub fn update_status<K: Stored>(&self, object: &K) -> Result<K, Status> {
        self.write(object, Part::Status)
    }

    fn write<K: Stored>(&self, object: &K, part: Part) -> Result<K, Status> {
        let metadata = object.metadata();
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let value = encode(object)?;
        self.change::<K>(namespace, name.unwrap_or_default(), part, |_| {
            Ok(value.clone())
        })
    }

    /// Reads, changes and writes the object (not its status); again if somebody
    /// else was faster. Nothing is written if `f` changes nothing.
    pub fn modify<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        f: impl FnMut(&mut K),
    ) -> Result<K, Status> {
        self.modify_part(namespace, name, Part::Main, f)
    }

    /// The same for the status.
    pub fn modify_status<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        f: impl FnMut(&mut K),
    ) -> Result<K, Status> {
        self.modify_part(namespace, name, Part::Status, f)
    }

    fn modify_part<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        part: Part,
        mut f: impl FnMut(&mut K),
    ) -> Result<K, Status> {
        self.change::<K>(namespace, name, part, |current| {
            let mut object: K = typed(current)?;
            f(&mut object);
            encode(&object)
        })
    }

    fn change<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        part: Part,
        mut change: impl FnMut(&Object) -> Result<Value, Status>,
    ) -> Result<K, Status> {
        let resource = self.resource::<K>()?;
        let options = WriteOptions::default();
        let update = Update {
            resource: &resource,
            namespace: namespace.unwrap_or_default(),
            name,
            part,
            or_create: false,
            options: &options,
        };
        let written = self.registry.update(&update, |current| match current {
            Some(current) => change(current),
            None => Err(resource.not_found(name)),
        })?;
        typed(&written.object)
    }

    /// `Some(0)` removes a pod at once, `None` takes the pod's own grace period.
    pub fn delete<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        grace_seconds: Option<i64>,
    ) -> Result<(), Status> {
        let options = DeleteOptions {
            grace_seconds,
            ..DeleteOptions::default()
        };
        self.delete_with::<K>(namespace, name, &options)
    }

    /// The same with preconditions, and a say in what becomes of owned objects.
    pub fn delete_with<K: Stored>(
        &self,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let resource = self.resource::<K>()?;
        self.registry
            .delete(&resource, namespace.unwrap_or_default(), name, options)?;
        Ok(())
    }

    /// All objects of a kind in all namespaces, as they are and as they change.
    pub fn watch<K: Stored>(&self) -> Watch<K> {
        let collection = self.resource::<K>().map_or_else(
            |_| K::URL_PATH_SEGMENT.to_owned(),
            |it| it.collection.clone(),
        );
        Watch::new(Arc::clone(&self.registry), collection)
    }

    fn resource<K: Stored>(&self) -> Result<Arc<Resource>, Status> {
        self.registry
            .resource(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT)
            .ok_or_else(Status::no_such_resource)
    }
}

fn encode<K: Stored>(object: &K) -> Result<Value, Status> {
    serde_json::to_value(object).map_err(Status::internal)
}

fn typed<K: Stored>(object: &Object) -> Result<K, Status> {
    object
        .typed::<K>()
        .map(Arc::unwrap_or_clone)
        .map_err(Status::internal)
}

fn decode<K: Stored>(object: &Object) -> Option<Arc<K>> {
    object
        .typed::<K>()
        .inspect_err(|error| tracing::warn!(?object, kind = K::KIND, %error, "cannot decode"))
        .ok()
}

/// What a [`Watch`] yields.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// The object is there, in this version.
    Applied(K),
    /// The object is gone; this was its last version.
    Deleted(K),
    /// All objects that existed when the watch started have been yielded.
    Synced,
}

/// A stream of changes that never ends while the [`Store`] lives. One that falls
/// behind the event log skips intermediate versions, never the final state.
pub struct Watch<K> {
    registry: Arc<Registry>,
    collection: String,
    wake: tokio::sync::watch::Receiver<u64>,
    revision: u64,
    /// What the consumer knows of, once everything in `ready` is consumed.
    known: BTreeMap<Key, Arc<Object>>,
    ready: VecDeque<Ready>,
    kind: PhantomData<fn() -> K>,
}

enum Ready {
    Applied(Arc<Object>),
    Deleted(Arc<Object>),
    Synced,
}

impl<K> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({}@{})", self.collection, self.revision)
    }
}

impl<K: Stored> Watch<K> {
    fn new(registry: Arc<Registry>, collection: String) -> Self {
        let wake = registry.storage.subscribe(&collection);
        let mut watch = Self {
            registry,
            collection,
            wake,
            revision: 0,
            known: BTreeMap::new(),
            ready: VecDeque::new(),
            kind: PhantomData,
        };
        watch.resync();
        watch.ready.push_back(Ready::Synced);
        watch
    }

    /// The next change; waits for one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> WatchEvent<K> {
        loop {
            self.wake.mark_unchanged();
            if let Some(event) = self.try_next() {
                return event;
            }
            if self.wake.changed().await.is_err() {
                // The store holds the sender and this watch holds the store.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next change, if there is one already.
    pub fn try_next(&mut self) -> Option<WatchEvent<K>> {
        loop {
            if self.ready.is_empty() {
                self.catch_up();
            }
            let event = match self.ready.pop_front()? {
                Ready::Synced => Some(WatchEvent::Synced),
                Ready::Applied(object) => decode(&object).map(|it| WatchEvent::Applied(own(it))),
                Ready::Deleted(object) => decode(&object).map(|it| WatchEvent::Deleted(own(it))),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn catch_up(&mut self) {
        let Ok(news) = self.registry.storage.news(&self.collection, self.revision) else {
            self.resync();
            return;
        };
        self.revision = news.revision;
        for event in news.events {
            let object = Arc::clone(&event.object);
            if event.change == Change::Deleted {
                self.known.remove(&object.key());
                self.ready.push_back(Ready::Deleted(object));
            } else {
                self.known.insert(object.key(), Arc::clone(&object));
                self.ready.push_back(Ready::Applied(object));
            }
        }
    }

    /// Yields the difference between what is known and what is there.
    fn resync(&mut self) {
        let (objects, revision) = self.registry.storage.list(&self.collection, None);
        self.revision = revision;
        let mut before = std::mem::take(&mut self.known);
        for object in objects {
            let key = object.key();
            let same = before
                .remove(&key)
                .is_some_and(|old| old.revision == object.revision);
            if !same {
                self.ready.push_back(Ready::Applied(Arc::clone(&object)));
            }
            self.known.insert(key, object);
        }
        self.ready.extend(before.into_values().map(Ready::Deleted));
    }
}

/// Watch events are consumed by value, and most by one consumer only.
fn own<K: Clone>(object: Arc<K>) -> K {
    Arc::unwrap_or_clone(object)
}

#[cfg(test)]
mod tests;
