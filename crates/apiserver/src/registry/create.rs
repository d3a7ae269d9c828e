//! POST.

use serde_json::{Map, Value, json};

use super::{DeleteOptions, Registry, Resource, WriteOptions, Written, meta};
use crate::kinds::{Context, Part};
use crate::storage::{Key, Object};
use crate::{Cause, CauseReason, Reason, Status};

/// Attempts to find a free name for `generateName`.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Stores a new object. `namespace` is the one of the path, empty for
    /// cluster-scoped kinds.
    pub(crate) fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let generated = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .is_empty();
        if generated {
            for _ in 1..NAME_ATTEMPTS {
                match self.create_once(resource, namespace, object.clone(), options) {
                    Err(status) if status.reason == Reason::AlreadyExists => {}
                    outcome => return outcome,
                }
            }
        }
        self.create_once(resource, namespace, object, options)
    }

    fn create_once(
        &self,
        resource: &Resource,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let metadata = meta::adopt(resource, namespace, &mut object)?;
        meta::set_system_fields(resource, metadata)?;
        let name = meta::text(metadata, "name").to_owned();
        if resource.spec.namespaced {
            self.check_namespace(resource, namespace, &name)?;
        }
        set_initial_status(resource, &mut object);
        let mut context = Context {
            field_validation: options.field_validation,
            part: Part::Main,
            warnings: Vec::new(),
        };
        self.prepare(resource, &mut object, None, &mut context)?;
        options.track(&resource.spec, Part::Main, None, &mut object);
        let object = self
            .commit_new(resource, object, options.dry_run)
            .map_err(|refused| self.refusal(resource, &name, refused))?;
        if resource.spec.namespaced && !options.dry_run {
            self.check_still_there(resource, namespace, &object)?;
        }
        Ok(Written {
            object,
            created: true,
            warnings: context.warnings,
        })
    }

    /// Objects can be made only in a namespace that is there and stays.
    fn check_namespace(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let Some(found) = self.storage.get("namespaces", &Key::new("", namespace)) else {
            return Err(Status::not_found("", "namespaces", namespace));
        };
        if found.deleting() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being \
                 terminated"
            );
            let cause = Cause::new(
                CauseReason::NamespaceTerminating,
                "metadata.namespace",
                format!("namespace {namespace} is being terminated"),
            );
            let spec = &resource.spec;
            return Err(Status::forbidden(&spec.group, &spec.plural, name, &why).with_cause(cause));
        }
        Ok(())
    }

    /// The namespace may have been marked between the check and the write: then
    /// whoever marked it did not see the object.
    fn check_still_there(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Object,
    ) -> Result<(), Status> {
        let checked = self.check_namespace(resource, namespace, object.name());
        if checked.is_err() {
            let options = DeleteOptions::default();
            self.delete(resource, namespace, object.name(), &options)?;
        }
        checked
    }
}

/// A client cannot set the status of a new object; only the kubelet registers
/// its Node together with its status.
fn set_initial_status(resource: &Resource, object: &mut Value) {
    let spec = &resource.spec;
    if !spec.status || resource.is("", "Node") {
        return;
    }
    let status = match (spec.group.as_str(), spec.kind.as_str()) {
        ("", "Pod") => json!({ "phase": "Pending" }),
        ("", "Namespace") => json!({ "phase": "Active" }),
        ("", "Service") | ("networking.k8s.io", "Ingress") => json!({ "loadBalancer": {} }),
        ("apps" | "batch", _) => Value::Object(Map::new()),
        _ => {
            if let Value::Object(fields) = object {
                fields.remove("status");
            }
            return;
        }
    };
    object["status"] = status;
}
