//! Validation of environment variables.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{list, text};
use super::super::names;
use super::super::path::Path;

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

pub(super) fn validate(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        match text(variable, "name") {
            "" => errors.required(&path.child("name"), ""),
            name => errors.invalid_all(&path.child("name"), name, names::env_name(name)),
        }
        if let Some(source) = variable.get("valueFrom") {
            let has_value = !text(variable, "value").is_empty();
            value_from(source, has_value, &path.child("valueFrom"), errors);
        }
    }
    env_from(container, &path.child("envFrom"), errors);
}

fn value_from(source: &Value, has_value: bool, path: &Path, errors: &mut Errors) {
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|field| source.get(field).is_some())
        .collect();
    match given.len() {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        ),
    }
    for field in given {
        let (source, path) = (&source[field], path.child(field));
        match field {
            "fieldRef" => field_ref(source, &path, errors),
            "resourceFieldRef" => resource_ref(source, &path, errors),
            "configMapKeyRef" | "secretKeyRef" => key_ref(source, &path, errors),
            _ => {}
        }
    }
}

/// A field of the pod: of a few, or one label or annotation.
fn field_ref(source: &Value, path: &Path, errors: &mut Errors) {
    let field = text(source, "fieldPath");
    let path = path.child("fieldPath");
    if field.is_empty() {
        return errors.required(&path, "");
    }
    match field.split_once('[') {
        Some((map, rest)) => {
            let key = rest.trim_end_matches(']').trim_matches('\'');
            match map {
                "metadata.labels" => errors.invalid_all(&path, key, names::label_key(key)),
                "metadata.annotations" => {
                    errors.invalid_all(&path, key, names::label_key(&key.to_lowercase()));
                }
                other => errors.invalid(&path, other, "does not support subscript"),
            }
        }
        None if FIELDS.contains(&field) => {}
        None => errors.not_supported(&path, field, FIELDS),
    }
}

fn resource_ref(source: &Value, path: &Path, errors: &mut Errors) {
    let resource = text(source, "resource");
    let path = path.child("resource");
    let huge = |which: &str| resource.starts_with(&format!("{which}.hugepages-"));
    if resource.is_empty() {
        errors.required(&path, "");
    } else if !RESOURCES.contains(&resource) && !huge("limits") && !huge("requests") {
        errors.not_supported(&path, resource, RESOURCES);
    }
}

/// A key of a ConfigMap or Secret.
fn key_ref(source: &Value, path: &Path, errors: &mut Errors) {
    let name = text(source, "name");
    errors.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
    match text(source, "key") {
        "" => errors.required(&path.child("key"), ""),
        key => errors.invalid_all(&path.child("key"), key, names::config_key(key)),
    }
}

fn env_from(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        let item = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.invalid_all(&item.child("prefix"), prefix, names::env_name(prefix));
        }
        let mut given = 0;
        for field in ["configMapRef", "secretRef"] {
            let Some(found) = source.get(field) else {
                continue;
            };
            given += 1;
            let path = item.child(field).child("name");
            match text(found, "name") {
                "" => errors.required(&path, ""),
                name => errors.invalid_all(&path, name, names::dns_subdomain(name)),
            }
        }
        let detail = match given {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid(path, "", detail);
    }
}
