//! Checks a set of manifests as the API will, before anything is made.

use std::collections::HashMap;

use ripstop_apiserver::Status;
use ripstop_apiserver::kinds::{Context, FieldValidation, builtin, prepare_create};

use super::kinds::{Kinds, rank};
use super::{ManifestError, Object, Source, object};

/// Reads all objects of `sources` and checks them: syntax, kinds, fields and
/// values, the same object twice. They come back in the order in which they are
/// to be made.
///
/// # Errors
/// Everything that is wrong, by file and line.
pub fn check(sources: &[Source]) -> Result<(Vec<Object>, Kinds), Vec<ManifestError>> {
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for source in sources {
        match object::parse(source) {
            Ok(found) => objects.extend(found),
            Err(found) => errors.extend(found),
        }
    }
    let kinds = Kinds::of(&objects);
    for object in &objects {
        match kinds.resource(object) {
            Ok(_) => errors.extend(invalid(object)),
            Err(error) => errors.push(error),
        }
    }
    errors.extend(repeated(&objects));
    if !errors.is_empty() {
        return Err(errors);
    }
    objects.sort_by_key(|object| rank(&object.kind));
    Ok((objects, kinds))
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
