//! PUT and PATCH: one loop that reads, changes, checks and writes again when
//! somebody else was faster.

use std::sync::Arc;

use serde_json::Value;

use super::commit::Refused;
use super::{Registry, Resource, WriteOptions, Written, meta};
use crate::Status;
use crate::kinds::{Context, Part};
use crate::storage::{CommitError, Key, Object};

/// A change of one object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update<'a> {
    pub(crate) resource: &'a Resource,
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    /// Create the object if it is not there (server-side apply).
    pub(crate) or_create: bool,
    pub(crate) options: &'a WriteOptions,
}

impl Registry {
    /// Changes an object. `change` makes the new version from the stored one
    /// (none if it is to be created); it may be called several times.
    pub(crate) fn update(
        &self,
        update: &Update<'_>,
        mut change: impl FnMut(Option<&Object>) -> Result<Value, Status>,
    ) -> Result<Written, Status> {
        let Update {
            resource,
            namespace,
            name,
            ..
        } = *update;
        let key = Key::new(namespace, name);
        loop {
            let Some(current) = self.storage.get(&resource.collection, &key) else {
                if !update.or_create {
                    return Err(resource.not_found(name));
                }
                let object = change(None)?;
                match self.create(resource, namespace, object, update.options) {
                    Err(status) if status.reason == crate::Reason::AlreadyExists => continue,
                    outcome => return outcome,
                }
            };
            let current = resource.view(current);
            let wanted = change(Some(&current))?;
            match self.update_once(update, &current, wanted) {
                // Again: a version that the request named is checked then.
                Err(Refused::Raced(CommitError::Changed | CommitError::Missing)) => {}
                outcome => {
                    return outcome.map_err(|refused| self.refusal(resource, name, refused));
                }
            }
        }
    }

    fn update_once(
        &self,
        update: &Update<'_>,
        current: &Arc<Object>,
        wanted: Value,
    ) -> Result<Written, Refused> {
        let resource = update.resource;
        let mut object = merge_parts(update, current, wanted)?;
        let mut context = Context {
            field_validation: update.options.field_validation,
            part: update.part,
            warnings: Vec::new(),
        };
        self.prepare(resource, &mut object, Some(&current.value), &mut context)?;
        let before = Some(&current.value);
        update
            .options
            .track(&resource.spec, update.part, before, &mut object);
        let object = self.commit_change(resource, current, object, update.options.dry_run)?;
        Ok(Written {
            object,
            created: false,
            warnings: context.warnings,
        })
    }
}

/// Takes from the new version only what this request may change.
fn merge_parts(update: &Update<'_>, current: &Object, mut wanted: Value) -> Result<Value, Status> {
    let Update {
        resource,
        namespace,
        name,
        part,
        ..
    } = *update;
    let metadata = meta::adopt(resource, namespace, &mut wanted)?;
    match meta::text(metadata, "name") {
        "" => {
            metadata.insert("name".to_owned(), Value::from(name));
        }
        found if found == name => {}
        found => {
            return Err(Status::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
    }
    let revision = meta::text(metadata, "resourceVersion");
    if !matches!(revision, "" | "0") && revision != current.revision.to_string() {
        return Err(resource.conflict(name, meta::MODIFIED));
    }
    let uid = meta::text(metadata, "uid");
    if !uid.is_empty() && uid != current.uid() {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.uid()
        );
        return Err(resource.conflict(name, &why));
    }
    let old = current.value["metadata"].as_object();
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    match part {
        Part::Main => {
            if resource.spec.status {
                move_field(&current.value, &mut wanted, "status");
            }
            Ok(wanted)
        }
        Part::Status => Ok(only_status(resource, &current.value, wanted)),
    }
}

/// The stored object with the status of `wanted`. Kubelets may change labels and
/// annotations of their Node and Pods along with it.
fn only_status(resource: &Resource, current: &Value, wanted: Value) -> Value {
    let mut object = current.clone();
    move_field(&wanted, &mut object, "status");
    move_field(
        &wanted["metadata"],
        &mut object["metadata"],
        "managedFields",
    );
    if resource.is("", "Node") || resource.is("", "Pod") {
        for field in ["labels", "annotations", "finalizers"] {
            move_field(&wanted["metadata"], &mut object["metadata"], field);
        }
    }
    object
}

fn move_field(from: &Value, to: &mut Value, field: &str) {
    let Value::Object(fields) = to else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}
