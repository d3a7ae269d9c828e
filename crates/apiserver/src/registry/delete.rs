//! DELETE: at once, after a grace period (pods), or when the last finalizer has
//! gone.

use std::sync::Arc;

use serde_json::Value;

use super::commit::Refused;
use super::{Registry, Resource, contain, meta};
use crate::Status;
use crate::storage::{CommitError, Object};

/// Seconds that a pod gets to stop when nobody says otherwise.
const DEFAULT_GRACE: i64 = 30;

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards (by the garbage collector).
    #[default]
    Background,
    /// They are deleted first; the object waits with a finalizer.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// The `DeleteOptions` of the API.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Propagation,
    /// Delete only this very object.
    pub uid: Option<String>,
    /// Delete only this version.
    pub revision: Option<String>,
    pub dry_run: bool,
}

/// How far a deletion got.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// The object is no longer there; this was its last version.
    Removed(Arc<Object>),
    /// The object is marked and goes later.
    Marked(Arc<Object>),
}

impl Registry {
    pub(crate) fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.check_removable(resource, name)?;
        loop {
            let current = self.get(resource, namespace, name)?;
            check_preconditions(resource, &current, options)?;
            match self.delete_once(resource, &current, options) {
                Ok(Deleted::Marked(_)) if Self::is_container(resource) && !options.dry_run => {
                    self.empty(resource, name);
                    return Ok(match self.get(resource, namespace, name) {
                        Ok(left) => Deleted::Marked(left),
                        Err(_) => Deleted::Removed(current),
                    });
                }
                Err(Refused::Raced(CommitError::Changed | CommitError::Missing)) => {}
                outcome => {
                    return outcome.map_err(|refused| self.refusal(resource, name, refused));
                }
            }
        }
    }

    fn delete_once(
        &self,
        resource: &Resource,
        current: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Refused> {
        let grace = grace_seconds(resource, current, options);
        let mut object = current.value.clone();
        add_finalizer(&mut object, options.propagation);
        let held = !meta::finalizers(&object).is_empty() || Self::is_container(resource);
        if grace == 0 && !held {
            return Ok(Deleted::Removed(if options.dry_run {
                Arc::clone(current)
            } else {
                self.commit_removal(resource, current)?
            }));
        }
        mark(resource, &mut object, grace);
        contain::mark_terminating(resource, &mut object);
        let marked = if object == current.value {
            Arc::clone(current)
        } else if options.dry_run {
            Arc::new(Object::new(object, current.revision))
        } else {
            self.commit_mark(resource, current, object)?
        };
        Ok(Deleted::Marked(marked))
    }
}

fn check_preconditions(
    resource: &Resource,
    current: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let revision = current.revision.to_string();
    for (what, wanted, found) in [
        ("UID", &options.uid, current.uid()),
        ("ResourceVersion", &options.revision, &revision),
    ] {
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(resource.conflict(current.name(), &why));
        }
    }
    Ok(())
}

/// Only pods that a node has, and that have not ended, get time to stop.
fn grace_seconds(resource: &Resource, pod: &Object, options: &DeleteOptions) -> i64 {
    let value = &pod.value;
    let ended = matches!(
        value["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    let bound = value["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    if !resource.is("", "Pod") || ended || !bound {
        return 0;
    }
    options
        .grace_seconds
        .or_else(|| value["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(DEFAULT_GRACE)
        .max(0)
}

fn add_finalizer(object: &mut Value, propagation: Propagation) {
    let finalizer = match propagation {
        Propagation::Background => return,
        Propagation::Foreground => "foregroundDeletion",
        Propagation::Orphan => "orphan",
    };
    if !meta::finalizers(object).contains(&finalizer) {
        let list = &mut object["metadata"]["finalizers"];
        match list {
            Value::Array(list) => list.push(Value::from(finalizer)),
            other => *other = Value::from(vec![finalizer]),
        }
    }
}

/// Marks the object as being deleted. A second deletion can only shorten the
/// grace period.
fn mark(resource: &Resource, object: &mut Value, grace: i64) {
    let counts = resource.spec.generation;
    let metadata = &mut object["metadata"];
    let earlier = metadata["deletionTimestamp"].is_string();
    if earlier && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) <= grace {
        return;
    }
    metadata["deletionTimestamp"] = Value::from(meta::in_seconds(grace));
    metadata["deletionGracePeriodSeconds"] = Value::from(grace);
    if counts && !earlier {
        let generation = metadata["generation"].as_i64().unwrap_or(0);
        metadata["generation"] = Value::from(generation + 1);
    }
}
