//! One function per verb: what the HTTP interface and the in-process client
//! both call. Admission happens here, so that no writer can go around it.

mod commit;
mod contain;
mod create;
mod delete;
mod meta;
mod read;
mod resource;
mod update;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::Value;

use crate::alloc::Allocator;
use crate::config::ClusterConfig;
use crate::crd;
use crate::kinds::{self, Context, FieldValidation, KindSpec, Part};
use crate::storage::{CommitError, Object, OpenError, Storage};
use crate::{Status, patch};

use commit::Refused;
pub(crate) use delete::Deleted;
pub use delete::{DeleteOptions, Propagation};
pub(crate) use meta::{epoch_seconds, now, parse_time};
pub(crate) use read::expired;
pub(crate) use read::{ListOptions, Page};
pub(crate) use resource::Resource;
pub(crate) use update::Update;

/// Query parameters of a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Do everything but store the result.
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Who owns what the write changes (`managedFields`). Empty for writers that
    /// own nothing: the lab's own controllers, and a server-side apply, which
    /// has set the managers itself.
    pub(crate) manager: String,
    /// The subresource that is written to, other than `status`.
    pub(crate) subresource: &'static str,
}

impl WriteOptions {
    /// Records the writer in the managers of `after`.
    fn track(&self, spec: &KindSpec, part: Part, before: Option<&Value>, after: &mut Value) {
        if self.manager.is_empty() {
            return;
        }
        let writer = patch::Writer {
            manager: &self.manager,
            subresource: match part {
                Part::Main => self.subresource,
                Part::Status => "status",
            },
            now: &now(),
        };
        patch::track(spec, before, after, &writer);
    }
}

/// The outcome of a write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    pub(crate) created: bool,
    /// For the client's `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

type Kinds = HashMap<(String, String, String), Arc<Resource>>;

/// The objects of one lab with their rules.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) storage: Storage,
    pub(crate) config: ClusterConfig,
    kinds: RwLock<Arc<Kinds>>,
    services: Mutex<Allocator>,
}

impl Registry {
    pub(crate) fn open(journal: Option<&Path>, config: ClusterConfig) -> Result<Self, OpenError> {
        let storage = Storage::open(journal)?;
        let mut services = Allocator::new(&config);
        for service in storage.list("services", None).0 {
            services.stored(None, Some(&service.value));
        }
        let registry = Self {
            storage,
            config,
            kinds: RwLock::default(),
            services: Mutex::new(services),
        };
        registry.reload_kinds();
        registry.reload_service_ranges();
        registry.resume_deletions();
        crate::bootstrap::run(&registry);
        Ok(registry)
    }

    /// Serves what the stored definitions say, beside what is built in.
    fn reload_kinds(&self) {
        // Locked while reading: the last to come sees the newest definitions.
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        let builtin = kinds::builtin()
            .iter()
            .map(|spec| Resource::new(Arc::clone(spec)));
        let (definitions, _) = self.storage.list(crd::COLLECTION, None);
        let custom = definitions
            .iter()
            .flat_map(|it| crd::served(&it.value))
            .map(Resource::custom);
        let all = builtin
            .chain(custom)
            .map(|resource| (resource.path(), Arc::new(resource)));
        *kinds = Arc::new(all.collect());
    }

    /// The kinds that are served now.
    fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The resource at `/apis/<group>/<version>/<plural>`.
    pub(crate) fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.kinds().get(&path).cloned()
    }

    /// Everything that is served, ordered by group, version and name.
    pub(crate) fn resources(&self) -> Vec<Arc<Resource>> {
        let mut all: Vec<_> = self.kinds().values().cloned().collect();
        all.sort_by_cached_key(|resource| resource.path());
        all
    }

    fn prepare(
        &self,
        resource: &Resource,
        object: &mut Value,
        current: Option<&Value>,
        context: &mut Context,
    ) -> Result<(), Status> {
        let spec = &resource.spec;
        match current {
            None => kinds::prepare_create(spec, object, context)?,
            Some(current) => kinds::prepare_update(spec, object, current, context)?,
        }
        let causes = if resource.is(crd::GROUP, crd::KIND) {
            crd::set_defaults(object);
            let causes = crd::check(object, current);
            crd::establish(object);
            causes
        } else {
            resource.validate(object)
        };
        if causes.is_empty() {
            return Ok(());
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Err(Status::invalid(&spec.group, &spec.kind, name, causes))
    }

    fn refusal(&self, resource: &Resource, name: &str, refused: Refused) -> Status {
        let KindSpec { group, plural, .. } = &*resource.spec;
        match refused {
            Refused::Status(status) => *status,
            Refused::Raced(CommitError::Exists) => Status::already_exists(group, plural, name),
            Refused::Raced(CommitError::Missing) => resource.not_found(name),
            Refused::Raced(CommitError::Changed) => resource.conflict(name, meta::MODIFIED),
            Refused::Raced(CommitError::Journal(error)) => Status::internal(error),
        }
    }
}

#[cfg(test)]
mod tests;
