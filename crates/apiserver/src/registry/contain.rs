//! Namespaces and definitions go after what is in them. Both are marked first,
//! which lets nothing new in; the removal of the last object inside removes them.

use serde_json::json;

use super::{DeleteOptions, Registry, Resource};
use crate::storage::{Key, Object};
use crate::{Status, crd};

/// Namespaces that a cluster cannot be without.
const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Registry {
    /// # Errors
    /// 403 for the namespaces that must stay.
    pub(super) fn check_removable(&self, resource: &Resource, name: &str) -> Result<(), Status> {
        if resource.is("", "Namespace") && PERMANENT.contains(&name) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden("", "namespaces", name, why));
        }
        Ok(())
    }

    /// Whether there is something in the object that has to go first.
    pub(super) fn is_container(resource: &Resource) -> bool {
        resource.is("", "Namespace") || resource.is(crd::GROUP, crd::KIND)
    }

    /// Deletes what is in a namespace or of a definition that has been marked.
    pub(super) fn empty(&self, resource: &Resource, name: &str) {
        if resource.is("", "Namespace") {
            for inside in self.resources().iter().filter(|it| it.spec.namespaced) {
                self.delete_all(inside, Some(name));
            }
            self.finish_namespace(name);
        } else {
            for inside in self.resources().iter().filter(|it| it.collection == name) {
                self.delete_all(inside, None);
            }
            self.finish_definition(name);
        }
    }

    fn delete_all(&self, resource: &Resource, namespace: Option<&str>) {
        let (objects, _) = self.storage.list(&resource.collection, namespace);
        for object in objects.iter().filter(|object| !object.deleting()) {
            let options = DeleteOptions::default();
            let gone = self.delete(resource, object.namespace(), object.name(), &options);
            if let Err(status) = gone
                && status.reason != crate::Reason::NotFound
            {
                tracing::warn!(?object, %status, "cannot delete");
            }
        }
    }

    /// Removes a namespace that is being deleted and is empty.
    pub(super) fn finish_namespace(&self, name: &str) {
        let Some(found) = self.marked("namespaces", name) else {
            return;
        };
        if self.storage.first_in_namespace(name).is_none() {
            self.finish("namespaces", &found);
        }
    }

    /// Removes a definition that is being deleted and has no objects.
    pub(super) fn finish_definition(&self, name: &str) {
        let Some(found) = self.marked(crd::COLLECTION, name) else {
            return;
        };
        if self.storage.list(name, None).0.is_empty() {
            self.finish(crd::COLLECTION, &found);
            self.reload_kinds();
        }
    }

    fn marked(&self, collection: &str, name: &str) -> Option<std::sync::Arc<Object>> {
        let found = self.storage.get(collection, &Key::new("", name))?;
        let held = found.value["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|it| !it.is_empty());
        (found.deleting() && !held).then_some(found)
    }

    fn finish(&self, collection: &str, found: &Object) {
        // If it changed in between, whoever changed it comes here as well.
        if let Err(error) = self
            .storage
            .remove(collection, &found.key(), found.revision)
        {
            tracing::debug!(?found, %error, "not removed yet");
        }
    }

    /// Goes on with deletions that were under way when the process ended.
    pub(super) fn resume_deletions(&self) {
        for collection in ["namespaces", crd::COLLECTION] {
            let Some(resource) = self
                .resources()
                .into_iter()
                .find(|it| it.collection == collection)
            else {
                continue;
            };
            for found in self
                .storage
                .list(collection, None)
                .0
                .iter()
                .filter(|it| it.deleting())
            {
                self.empty(&resource, found.name());
            }
        }
    }
}

/// What else a marked Namespace or definition shows.
pub(super) fn mark_terminating(resource: &Resource, object: &mut serde_json::Value) {
    if resource.is("", "Namespace") {
        object["status"]["phase"] = json!("Terminating");
    } else if resource.is(crd::GROUP, crd::KIND) {
        crd::mark_terminating(object);
    }
}
