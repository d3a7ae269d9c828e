//! The rules of `metadata`, the same for every kind.

use serde_json::Value;

use super::error::Errors;
use super::get::{self, entries, list, text, texts};
use super::labels;
use super::names::{self, NameRule};
use super::path::Path;

/// Bytes that all annotations of an object may take together.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Checks the metadata of an object that has its name and namespace.
pub(super) fn validate(object: &Value, namespaced: bool, name: NameRule, errors: &mut Errors) {
    let path = Path::root("metadata");
    let meta = &object["metadata"];
    let field = |name: &str| path.child(name);

    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        errors.invalid_all(&field("generateName"), generate, name.check(generate, true));
    }
    match text(meta, "name") {
        "" => errors.required(&field("name"), "name or generateName is required"),
        given => errors.invalid_all(&field("name"), given, name.check(given, false)),
    }
    match (namespaced, text(meta, "namespace")) {
        (true, "") => errors.required(&field("namespace"), ""),
        (true, namespace) => {
            errors.invalid_all(&field("namespace"), namespace, names::dns_label(namespace));
        }
        (false, "") => {}
        (false, _) => errors.forbidden(&field("namespace"), "not allowed on this type"),
    }
    labels::validate(meta, "labels", &path, errors);
    annotations(meta, &path, errors);
    owners(meta, &field("ownerReferences"), errors);
    for finalizer in texts(meta, "finalizers") {
        errors.invalid_all(&field("finalizers"), finalizer, names::label_key(finalizer));
    }
}

/// Checks the annotations of `meta`.
pub(super) fn annotations(meta: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("annotations");
    let mut size = 0;
    for (key, value) in entries(meta, "annotations") {
        // Upper case is allowed in the prefix, too.
        errors.invalid_all(&path, key, names::label_key(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long(&path, ANNOTATIONS_LIMIT);
    }
}

fn owners(meta: &Value, path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in list(meta, "ownerReferences") {
        for (field, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, field).is_empty() {
                errors.invalid(&path.child(field), "", message);
            }
        }
        if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
            errors.invalid(
                path,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if get::flag(owner, "controller") {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    meta["ownerReferences"].clone(),
                    &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

/// Checks what an update may not change.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if old.get("deletionTimestamp").is_some() {
        let before = texts(old, "finalizers");
        let added: Vec<&str> = texts(new, "finalizers")
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            errors.forbidden(
                &path.child("finalizers"),
                &format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
            );
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if new.get(field) != old.get(field) {
            let value = new.get(field).cloned().unwrap_or_default();
            errors.invalid(&path.child(field), value, IMMUTABLE);
        }
    }
}
