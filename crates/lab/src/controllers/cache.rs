//! Local copies of the API's objects, fed by its watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::object::{Cached, Key};

/// All objects of one kind, by key and by the uid of their owners.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// uid of an owner -> what names it in `ownerReferences`.
    by_owner: HashMap<String, BTreeSet<Key>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            by_owner: HashMap::new(),
        }
    }
}

impl<K: Cached> Cache<K> {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// Whatever names this uid as an owner, managed by it or not.
    pub(crate) fn dependents<'a>(&'a self, owner_uid: &str) -> impl Iterator<Item = &'a Arc<K>> {
        self.by_owner
            .get(owner_uid)
            .into_iter()
            .flatten()
            .filter_map(|key| self.objects.get(key))
    }

    /// What this owner manages.
    pub(crate) fn controlled_by<'a>(
        &'a self,
        owner_uid: &'a str,
    ) -> impl Iterator<Item = &'a Arc<K>> {
        self.dependents(owner_uid)
            .filter(move |object| super::object::is_controlled_by(object.metadata(), owner_uid))
    }

    /// Stores the object and returns the one that was there; `Err` if the
    /// cache already has this version or a newer one (the answer to an own
    /// write arrives before the watch tells of it).
    pub(crate) fn put(&mut self, object: Arc<K>) -> Result<Option<Arc<K>>, Stale> {
        let key = Key::of(object.metadata());
        if let Some(old) = self.objects.get(&key) {
            let (old, new) = (old.metadata(), object.metadata());
            if old.uid == new.uid && version(new) <= version(old) {
                return Err(Stale);
            }
        }
        for owner in owners(object.metadata()) {
            self.by_owner
                .entry(owner.to_owned())
                .or_default()
                .insert(key.clone());
        }
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            let kept: Vec<&str> = owners(object.metadata()).collect();
            self.forget_owners(&key, old.metadata(), &kept);
        }
        Ok(old)
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.forget_owners(key, old.metadata(), &[]);
        Some(old)
    }

    fn forget_owners(&mut self, key: &Key, meta: &ObjectMeta, kept: &[&str]) {
        for owner in owners(meta).filter(|uid| !kept.contains(uid)) {
            if let Some(keys) = self.by_owner.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(owner);
                }
            }
        }
    }
}

/// The cache knows this version of the object, or a newer one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stale;

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.owner_references
        .iter()
        .flatten()
        .map(|owner| owner.uid.as_str())
}

fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}
