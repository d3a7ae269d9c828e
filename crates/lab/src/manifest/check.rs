//! Checks a set of manifests as the API will, before anything is made.

use std::collections::HashMap;

use ripstop_apiserver::Status;
use ripstop_apiserver::kinds::{Context, FieldValidation, builtin, prepare_create};

use super::kinds::{Kinds, Resource, WORKLOADS};
use super::{ManifestError, Object, Source, object};

/// The objects of a set of manifests, in the order in which they are to be made.
#[derive(Clone, Debug)]
pub struct Manifests {
    pub objects: Vec<Object>,
    pub kinds: Kinds,
}

impl Manifests {
    /// What pods need, and the objects that make pods.
    pub fn split(&self) -> (&[Object], &[Object]) {
        let workloads = self
            .objects
            .partition_point(|object| object.rank() < WORKLOADS);
        self.objects.split_at(workloads)
    }
}

/// Reads all objects of `sources` and checks them: syntax, kinds, fields and
/// values, the same object twice. `more` are kinds that the API has beside the
/// built-in ones.
///
/// # Errors
/// Everything that is wrong, by file and line.
pub fn check(sources: &[Source], more: Vec<Resource>) -> Result<Manifests, Vec<ManifestError>> {
    let mut errors = Vec::new();
    let manifests = read(sources, more, &mut errors);
    errors.extend(manifests.objects.iter().flat_map(invalid));
    errors.extend(repeated(&manifests.objects));
    finish(manifests, errors)
}

/// As [`check`], but only which objects there are: enough to delete them.
///
/// # Errors
/// Syntax and unknown kinds.
pub fn identify(sources: &[Source], more: Vec<Resource>) -> Result<Manifests, Vec<ManifestError>> {
    let mut errors = Vec::new();
    let manifests = read(sources, more, &mut errors);
    finish(manifests, errors)
}

fn read(sources: &[Source], more: Vec<Resource>, errors: &mut Vec<ManifestError>) -> Manifests {
    let mut objects = Vec::new();
    for source in sources {
        match object::parse(source) {
            Ok(found) => objects.extend(found),
            Err(found) => errors.extend(found),
        }
    }
    let kinds = Kinds::new(&objects, more);
    errors.extend(
        objects
            .iter()
            .filter_map(|object| kinds.resource(object).err()),
    );
    objects.sort_by_key(Object::rank);
    Manifests { objects, kinds }
}

fn finish(
    manifests: Manifests,
    errors: Vec<ManifestError>,
) -> Result<Manifests, Vec<ManifestError>> {
    if errors.is_empty() {
        Ok(manifests)
    } else {
        Err(errors)
    }
}

/// What the API would refuse about one object of a built-in kind.
fn invalid(object: &Object) -> Vec<ManifestError> {
    let Some(kind) = builtin()
        .iter()
        .find(|kind| kind.kind == object.kind && kind.api_version() == object.api_version)
    else {
        return Vec::new();
    };
    let mut value = object.value.clone();
    if kind.namespaced && object.namespace.is_none() {
        value["metadata"]["namespace"] = "default".into();
    }
    let mut context = Context {
        field_validation: FieldValidation::Strict,
        ..Context::default()
    };
    match prepare_create(kind, &mut value, &mut context) {
        Ok(()) => Vec::new(),
        Err(status) => explain(object, &status),
    }
}

/// A refusal of the API as errors with places: one for each cause.
pub fn explain(object: &Object, status: &Status) -> Vec<ManifestError> {
    let mut errors: Vec<_> = status
        .causes()
        .iter()
        .map(|cause| {
            let message = format!("{}: {}: {}", object.label(), cause.field, cause.message);
            object.error(&cause.field, message)
        })
        .collect();
    if errors.is_empty() {
        errors.push(object.error("", format!("{}: {}", object.label(), status.message)));
    }
    errors
}

fn repeated(objects: &[Object]) -> Vec<ManifestError> {
    let mut first = HashMap::new();
    let mut errors = Vec::new();
    for object in objects {
        let group = object
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let key = (group, &object.kind, namespace, &object.name);
        if let Some(earlier) = first.insert(key, object) {
            let message = format!("{} is also defined at {}", object.label(), earlier.place());
            errors.push(object.error("metadata.name", message));
        }
    }
    errors
}
