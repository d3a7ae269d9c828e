//! Validation of volumes and their mounts.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{list, text};
use super::super::names as syntax;
use super::super::path::Path;

/// The names of the pod's volumes.
pub(super) fn names(spec: &Value) -> Vec<&str> {
    let volumes = list(spec, "volumes").iter();
    volumes.map(|volume| text(volume, "name")).collect()
}

pub(super) fn validate_all(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut taken = Vec::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), name, syntax::dns_label(name));
        }
        if taken.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        taken.push(name);
        source(volume, &path, errors);
    }
}

/// Exactly one source.
fn source(volume: &Value, path: &Path, errors: &mut Errors) {
    let mut sources = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(field, _)| *field != "name");
    let Some((field, first)) = sources.next() else {
        return errors.required(path, "must specify a volume type");
    };
    let path_of = path.child(field);
    let needed: &[&str] = match field.as_str() {
        "configMap" => &["name"],
        "secret" => &["secretName"],
        "hostPath" => &["path"],
        "persistentVolumeClaim" => &["claimName"],
        "nfs" => &["server", "path"],
        "csi" => &["driver"],
        _ => &[],
    };
    for field in needed {
        if text(first, field).is_empty() {
            errors.required(&path_of.child(field), "");
        }
    }
    for (field, _) in sources {
        errors.forbidden(
            &path.child(field),
            "may not specify more than 1 volume type",
        );
    }
}

/// The mounts of a container; `volumes` are the names that there are.
pub(super) fn validate_mounts(
    container: &Value,
    volumes: &[&str],
    path: &Path,
    errors: &mut Errors,
) {
    let mut taken = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !volumes.contains(&name) {
            errors.not_found(&path.child("name"), name);
        }
        let place = text(mount, "mountPath");
        if place.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if taken.contains(&place) {
            errors.invalid(&path.child("mountPath"), place, "must be unique");
        }
        taken.push(place);
        for field in ["subPath", "subPathExpr"] {
            let inside = text(mount, field);
            if inside.starts_with('/') {
                errors.invalid(&path.child(field), inside, "must be a relative path");
            }
            if inside.split('/').any(|step| step == "..") {
                errors.invalid(&path.child(field), inside, "must not contain '..'");
            }
        }
    }
}
