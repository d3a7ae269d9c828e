//! What a path below `/api` or `/apis` stands for.

use std::sync::Arc;

use serde_json::Value;

use crate::kinds::KindSpec;
use crate::storage::Object;
use crate::{Cause, Status, crd};

/// A kind that is served, and where its objects are stored.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) spec: Arc<KindSpec>,
    /// Name of the collection: `pods`, `deployments.apps`. All versions of a
    /// kind share it.
    pub(crate) collection: String,
    /// Of a custom resource.
    schema: Option<Arc<crd::Schema>>,
}

impl Resource {
    pub(super) fn new(spec: Arc<KindSpec>) -> Self {
        let collection = if spec.group.is_empty() {
            spec.plural.clone()
        } else {
            format!("{}.{}", spec.plural, spec.group)
        };
        Self {
            spec,
            collection,
            schema: None,
        }
    }

    pub(super) fn custom(served: crd::Served) -> Self {
        Self {
            schema: served.schema,
            ..Self::new(Arc::new(served.spec))
        }
    }

    /// Group, version and plural.
    pub(super) fn path(&self) -> (String, String, String) {
        let spec = &self.spec;
        (
            spec.group.clone(),
            spec.version.clone(),
            spec.plural.clone(),
        )
    }

    /// What the schema of a custom resource finds.
    pub(super) fn validate(&self, object: &Value) -> Vec<Cause> {
        let schema = self.schema.as_ref();
        schema
            .map(|schema| schema.validate(object))
            .unwrap_or_default()
    }

    /// The object in the version of this resource: all versions of a kind have
    /// the same fields (conversion `None`).
    pub(crate) fn view(&self, object: Arc<Object>) -> Arc<Object> {
        if !self.needs_view(&object) {
            return object;
        }
        let mut value = object.value.clone();
        value["apiVersion"] = Value::from(self.spec.api_version());
        Arc::new(Object::new(value, object.revision))
    }

    /// Whether the object is stored in another version.
    pub(crate) fn needs_view(&self, object: &Object) -> bool {
        self.spec.is_custom() && object.value["apiVersion"] != self.spec.api_version()
    }

    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        self.spec.group == group && self.spec.kind == kind
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.spec.group, &self.spec.plural, name)
    }

    pub(super) fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.spec.group, &self.spec.plural, name, why)
    }
}
