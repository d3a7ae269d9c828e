//! One function per verb: what the HTTP interface and the in-process client
//! both call. Admission happens here, so that no writer can go around it.

mod create;
mod delete;
mod meta;
mod read;
mod update;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::Status;
use crate::config::ClusterConfig;
use crate::kinds::{self, Context, FieldValidation, KindSpec};
use crate::storage::{CommitError, Key, Object, OpenError, Storage};

pub use delete::{DeleteOptions, Deleted, Propagation};
pub(crate) use meta::{epoch_seconds, parse_time};
pub(crate) use read::expired;
pub use read::{ListOptions, Page};
pub use update::Update;

/// A kind that is served, and where its objects are stored.
#[derive(Debug)]
pub struct Resource {
    pub spec: Arc<KindSpec>,
    /// Name of the collection: `pods`, `deployments.apps`. All versions of a
    /// kind share it.
    pub collection: String,
}

impl Resource {
    fn new(spec: Arc<KindSpec>) -> Self {
        let collection = if spec.group.is_empty() {
            spec.plural.clone()
        } else {
            format!("{}.{}", spec.plural, spec.group)
        };
        Self { spec, collection }
    }

    /// The object in the version of this resource: all versions of a kind have
    /// the same fields (conversion `None`).
    pub fn view(&self, object: Arc<Object>) -> Arc<Object> {
        if !self.needs_view(&object) {
            return object;
        }
        let mut value = object.value.clone();
        value["apiVersion"] = Value::from(self.spec.api_version());
        Arc::new(Object::new(value, object.revision))
    }

    /// Whether the object is stored in another version.
    pub fn needs_view(&self, object: &Object) -> bool {
        self.spec.is_custom() && object.value["apiVersion"] != self.spec.api_version()
    }

    fn is(&self, group: &str, kind: &str) -> bool {
        self.spec.group == group && self.spec.kind == kind
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.spec.group, &self.spec.plural, name)
    }

    fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.spec.group, &self.spec.plural, name, why)
    }
}

/// Query parameters of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but store the result.
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

/// The outcome of a write.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Arc<Object>,
    pub created: bool,
    /// For the client's `Warning` headers.
    pub warnings: Vec<String>,
}

type Kinds = HashMap<(String, String, String), Arc<Resource>>;

/// The objects of one lab with their rules.
#[derive(Debug)]
pub struct Registry {
    pub storage: Storage,
    pub config: ClusterConfig,
    kinds: RwLock<Arc<Kinds>>,
}

impl Registry {
    pub fn open(journal: Option<&Path>, config: ClusterConfig) -> Result<Self, OpenError> {
        let kinds = kinds::builtin()
            .iter()
            .map(|spec| {
                let path = (
                    spec.group.clone(),
                    spec.version.clone(),
                    spec.plural.clone(),
                );
                (path, Arc::new(Resource::new(Arc::clone(spec))))
            })
            .collect();
        let registry = Self {
            storage: Storage::open(journal)?,
            config,
            kinds: RwLock::new(Arc::new(kinds)),
        };
        crate::bootstrap::run(&registry);
        Ok(registry)
    }

    /// The kinds that are served now.
    fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The resource at `/apis/<group>/<version>/<plural>`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.kinds().get(&path).cloned()
    }

    /// Everything that is served, ordered by group, version and name.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        let mut all: Vec<_> = self.kinds().values().cloned().collect();
        all.sort_by(|a, b| {
            let key = |it: &Resource| {
                (
                    it.spec.group.clone(),
                    it.spec.version.clone(),
                    it.spec.plural.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        all
    }

    fn prepare(
        &self,
        resource: &Resource,
        object: &mut Value,
        current: Option<&Value>,
        context: &mut Context,
    ) -> Result<(), Status> {
        match current {
            None => kinds::prepare_create(&resource.spec, object, context),
            Some(current) => kinds::prepare_update(&resource.spec, object, current, context),
        }
    }

    fn commit_error(&self, resource: &Resource, name: &str, error: CommitError) -> Status {
        let KindSpec { group, plural, .. } = &*resource.spec;
        match error {
            CommitError::Exists => Status::already_exists(group, plural, name),
            CommitError::Missing => resource.not_found(name),
            CommitError::Changed => resource.conflict(name, meta::MODIFIED),
            CommitError::Journal(error) => Status::internal(error),
        }
    }
}
