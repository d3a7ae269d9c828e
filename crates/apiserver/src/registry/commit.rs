//! The last step of every write: allocation, storage, and what follows from it.

use std::sync::{Arc, MutexGuard, PoisonError};

use ipnet::IpNet;
use serde_json::Value;

use super::{Registry, Resource, meta};
use crate::alloc::Allocator;
use crate::storage::{CommitError, Object};
use crate::{Status, crd};

/// Group and kind of the objects that add ranges of ClusterIPs.
const SERVICE_CIDR: (&str, &str) = ("networking.k8s.io", "ServiceCIDR");

/// Why a commit did not happen.
pub(super) enum Refused {
    /// The object is not what it was when it was read.
    Raced(CommitError),
    Status(Box<Status>),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Registry {
    pub(super) fn commit_new(
        &self,
        resource: &Resource,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Refused> {
        let mut services = self.services(resource);
        if let Some(services) = &mut services {
            services.complete(&mut object)?;
        }
        if dry_run {
            return Ok(Arc::new(Object::new(object, 0)));
        }
        let stored = self
            .storage
            .create(&resource.collection, object)
            .map_err(raced)?;
        if let Some(services) = &mut services {
            services.stored(None, Some(&stored.value));
        }
        drop(services);
        self.after(resource, None);
        Ok(stored)
    }

    /// Stores the object if it differs from `current`; removes it if it is being
    /// deleted and nothing holds it any more.
    pub(super) fn commit_change(
        &self,
        resource: &Resource,
        current: &Arc<Object>,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Refused> {
        let mut services = self.services(resource);
        if let Some(services) = &mut services {
            services.complete(&mut object)?;
        }
        if resource.spec.generation && spec_changed(&current.value, &object) {
            let generation = current.value["metadata"]["generation"]
                .as_i64()
                .unwrap_or(0);
            object["metadata"]["generation"] = Value::from(generation + 1);
        }
        object["metadata"]["resourceVersion"] = Value::from(current.revision.to_string());
        if object == current.value {
            return Ok(Arc::clone(current));
        }
        if dry_run {
            return Ok(Arc::new(Object::new(object, current.revision)));
        }
        if gone(&object) {
            drop(services);
            return self.commit_removal(resource, current);
        }
        let stored = self
            .storage
            .replace(&resource.collection, object, current.revision);
        let stored = stored.map_err(raced)?;
        if let Some(services) = &mut services {
            services.stored(Some(&current.value), Some(&stored.value));
        }
        drop(services);
        self.after(resource, None);
        Ok(stored)
    }

    /// Stores an object that is now being deleted, whatever holds it.
    pub(super) fn commit_mark(
        &self,
        resource: &Resource,
        current: &Object,
        object: Value,
    ) -> Result<Arc<Object>, Refused> {
        let stored = self
            .storage
            .replace(&resource.collection, object, current.revision);
        let stored = stored.map_err(raced)?;
        self.after(resource, None);
        Ok(stored)
    }

    /// Returns the last version.
    pub(super) fn commit_removal(
        &self,
        resource: &Resource,
        current: &Object,
    ) -> Result<Arc<Object>, Refused> {
        let mut services = self.services(resource);
        let key = current.key();
        let last = self
            .storage
            .remove(&resource.collection, &key, current.revision);
        let last = last.map_err(raced)?;
        if let Some(services) = &mut services {
            services.stored(Some(&current.value), None);
        }
        drop(services);
        self.after(resource, Some(&last));
        Ok(last)
    }

    /// Held while a Service is completed and stored, so that no two get the same.
    fn services(&self, resource: &Resource) -> Option<MutexGuard<'_, Allocator>> {
        let lock = || self.services.lock().unwrap_or_else(PoisonError::into_inner);
        resource.is("", "Service").then(lock)
    }

    /// Gives services addresses of the ranges that there are now.
    pub(super) fn reload_service_ranges(&self) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        // Listed under the lock: the last to come sees the newest ranges.
        let (objects, _) = self.storage.list("servicecidrs.networking.k8s.io", None);
        let added = objects.iter().filter(|object| {
            let deleted = &object.value["metadata"]["deletionTimestamp"];
            deleted.is_null()
        });
        let added = added.flat_map(|object| {
            let cidrs = object.value["spec"]["cidrs"].as_array();
            let cidrs = cidrs.into_iter().flatten();
            let cidrs = cidrs.filter_map(|cidr| cidr.as_str()?.parse::<IpNet>().ok());
            cidrs.collect::<Vec<_>>()
        });
        let own = self.config.service_cidrs.iter().copied();
        services.set_ranges(own.chain(added));
    }

    fn after(&self, resource: &Resource, removed: Option<&Object>) {
        if resource.is(crd::GROUP, crd::KIND) {
            self.reload_kinds();
        }
        if resource.is(SERVICE_CIDR.0, SERVICE_CIDR.1) {
            self.reload_service_ranges();
        }
        if let Some(removed) = removed {
            if resource.spec.namespaced {
                self.finish_namespace(removed.namespace());
            }
            if resource.spec.is_custom() {
                self.finish_definition(&resource.collection);
            }
        }
    }
}

fn raced(error: CommitError) -> Refused {
    Refused::Raced(error)
}

/// Whether anything but metadata and status differs.
fn spec_changed(old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return false;
    };
    let counts = |field: &str| !matches!(field, "metadata" | "status");
    let differs =
        |(field, value): (&String, &Value)| counts(field) && old.get(field) != Some(value);
    new.iter().any(differs)
        || old
            .keys()
            .any(|field| counts(field) && !new.contains_key(field))
}

/// Whether the last finalizer of a deleted object has gone.
fn gone(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && meta::finalizers(object).is_empty()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}
