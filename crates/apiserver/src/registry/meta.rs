//! The metadata that the server sets, not the client.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::Resource;
use crate::{Cause, Status};

/// Message of a 409 for an update of an old version.
pub(super) const MODIFIED: &str = "the object has been modified; please apply your changes to \
     the latest version and try again";

/// Longest part of a `generateName` that is kept.
const GENERATE_BASE: usize = 58;

/// Now, as API objects have it: UTC, whole seconds.
pub(crate) fn now() -> String {
    in_seconds(0)
}

/// `seconds` from now.
pub(super) fn in_seconds(seconds: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let second = i64::try_from(now)
        .unwrap_or(i64::MAX)
        .saturating_add(seconds);
    let then = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Seconds since the epoch.
pub(crate) fn epoch_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Seconds since the epoch of an RFC 3339 time.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn new_uid() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// `generateName` with a random suffix. The alphabet has no vowels and nothing
/// that reads like another letter, as in Kubernetes.
pub(super) fn generated_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut name: String = base.chars().take(GENERATE_BASE).collect();
    for _ in 0..5 {
        let index = rand::random_range(0..ALPHABET.len());
        name.push(char::from(ALPHABET[index]));
    }
    name
}

/// Checks that the body is an object of this kind with usable metadata, and
/// fills in what the path already says. Returns its metadata.
pub(super) fn adopt<'a>(
    resource: &Resource,
    namespace: &str,
    object: &'a mut Value,
) -> Result<&'a mut Map<String, Value>, Status> {
    let spec = &resource.spec;
    let Value::Object(fields) = object else {
        return Err(Status::bad_request(format!(
            "the body is not a {} object",
            spec.kind
        )));
    };
    let api_version = spec.api_version();
    for (field, expected, what) in [
        ("apiVersion", api_version.as_str(), "API version"),
        ("kind", spec.kind.as_str(), "kind"),
    ] {
        match fields.get(field).and_then(Value::as_str) {
            None | Some("") => {
                fields.insert(field.to_owned(), Value::from(expected));
            }
            Some(found) if found == expected => {}
            Some(found) => {
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    let metadata = fields
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Value::Object(metadata) = metadata else {
        return Err(Status::bad_request(format!(
            "metadata of the {} is not an object",
            spec.kind
        )));
    };
    for field in [
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
    ] {
        match metadata.get(field) {
            None | Some(Value::String(_)) => {}
            Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(_) => {
                return Err(Status::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: metadata.{field} is not a string",
                    spec.kind, spec.version, spec.kind
                )));
            }
        }
    }
    if spec.namespaced {
        match text(metadata, "namespace") {
            "" => {
                metadata.insert("namespace".to_owned(), Value::from(namespace));
            }
            found if found == namespace => {}
            found => {
                return Err(Status::bad_request(format!(
                    "the namespace of the provided object does not match the namespace sent on \
                     the request ({found} and {namespace})"
                )));
            }
        }
    } else {
        metadata.remove("namespace");
    }
    metadata.remove("selfLink");
    Ok(metadata)
}

/// A string field, empty if missing.
pub(super) fn text<'a>(metadata: &'a Map<String, Value>, field: &str) -> &'a str {
    metadata
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The finalizers of an object.
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Sets what only the server may set on a new object.
pub(super) fn set_system_fields(
    resource: &Resource,
    metadata: &mut Map<String, Value>,
) -> Result<(), Status> {
    if !text(metadata, "resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if text(metadata, "name").is_empty() {
        let base = text(metadata, "generateName");
        if base.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            let spec = &resource.spec;
            return Err(Status::invalid(&spec.group, &spec.kind, "", vec![cause]));
        }
        let name = generated_name(base);
        metadata.insert("name".to_owned(), Value::from(name));
    }
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), Value::from(new_uid()));
    metadata.insert("creationTimestamp".to_owned(), Value::from(now()));
    if resource.spec.generation {
        metadata.insert("generation".to_owned(), Value::from(1));
    } else {
        metadata.remove("generation");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
        assert_ne!(uid, new_uid());
    }

    #[test]
    fn generated_names_fit_a_label() {
        let name = generated_name(&"x".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(generated_name("web-").starts_with("web-"));
    }
}
