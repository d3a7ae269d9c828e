//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::Errors;
use super::get::{default, entries, flag, object_mut, set, text};
use super::metadata::IMMUTABLE;
use super::names;
use super::path::Path;
use super::rules::{Builtin, PLAIN};

/// Bytes that the data of a ConfigMap or Secret may take.
const LIMIT: usize = 1024 * 1024;

pub(super) static CONFIG_MAP: Builtin = Builtin {
    validate: validate_config_map,
    validate_update: |new, old, errors| unchanged(new, old, &["data", "binaryData"], errors),
    ..PLAIN
};

pub(super) static SECRET: Builtin = Builtin {
    default: secret_defaults,
    validate: validate_secret,
    validate_update: validate_secret_update,
    ..PLAIN
};

fn validate_config_map(map: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (field, other) in [("data", "binaryData"), ("binaryData", "data")] {
        for (key, value) in entries(map, field) {
            let path = Path::root(field).key(key);
            errors.invalid_all(&path, key, names::config_key(key));
            if field == "data" && map[other].get(key).is_some() {
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
            size += value.as_str().unwrap_or_default().len();
        }
    }
    if size > LIMIT {
        errors.too_long(&Path::empty(), LIMIT);
    }
}

/// `stringData` is a way to write, not a field: it becomes data.
fn secret_defaults(secret: &mut Value) {
    default(secret, "type", "Opaque");
    let plain: Vec<(String, String)> = entries(secret, "stringData")
        .map(|(key, value)| {
            (
                key.to_owned(),
                STANDARD.encode(value.as_str().unwrap_or_default()),
            )
        })
        .collect();
    set(secret, "stringData", None);
    if !plain.is_empty() {
        let data = object_mut(secret, "data");
        for (key, value) in plain {
            set(data, &key, Some(value.into()));
        }
    }
}

fn validate_secret(secret: &Value, errors: &mut Errors) {
    let path = Path::root("data");
    let mut size = 0;
    for (key, value) in entries(secret, "data") {
        errors.invalid_all(&path.key(key), key, names::config_key(key));
        size += value.as_str().unwrap_or_default().len() / 4 * 3;
    }
    if size > LIMIT {
        errors.too_long(&path, LIMIT);
    }
    let needed: &[&str] = match text(secret, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if secret["data"].get(key).is_none() {
            errors.required(&path.key(key), "");
        }
    }
}

fn validate_secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    if new.get("type") != old.get("type") {
        errors.invalid(&Path::root("type"), text(new, "type"), IMMUTABLE);
    }
    unchanged(new, old, &["data"], errors);
}

/// What was once declared immutable stays so.
fn unchanged(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.forbidden(&Path::root("immutable"), DETAIL);
    }
    for field in fields {
        if new.get(field) != old.get(field) {
            errors.forbidden(&Path::root(field), DETAIL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, refuses, refuses_update, with};
    use serde_json::{Value, json};

    fn good(kind: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": "c", "namespace": "default"},
            "data": {"key": "YQ=="},
        })
    }

    #[test]
    fn secrets() {
        let secret = with(
            &good("Secret"),
            "/stringData",
            json!({"key": "b", "other": "c"}),
        );
        let secret = create("Secret", secret).unwrap();
        assert_eq!(secret["data"], json!({"key": "Yg==", "other": "Yw=="}));
        assert_eq!(secret.get("stringData"), None);
        assert_eq!(secret["type"], "Opaque");
        refuses(
            "Secret",
            &good("Secret"),
            &[
                (
                    "/data/a b",
                    json!(""),
                    "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ),
                (
                    "/data/key",
                    json!("%"),
                    "Secret in version \"v1\" cannot be handled as a Secret: data.key: illegal base64 data: Invalid symbol 37, offset 0.",
                ),
                (
                    "/type",
                    json!("kubernetes.io/tls"),
                    "data[tls.crt]: Required value\ndata[tls.key]: Required value",
                ),
            ],
        );
        refuses_update(
            "Secret",
            &good("Secret"),
            &[(
                "/type",
                json!("x"),
                "type: Invalid value: \"x\": field is immutable",
            )],
        );
    }

    #[test]
    fn config_maps() {
        refuses(
            "ConfigMap",
            &good("ConfigMap"),
            &[
                (
                    "/binaryData",
                    json!({"key": "YQ=="}),
                    "data[key]: Invalid value: \"key\": duplicate of key present in binaryData",
                ),
                (
                    "/data/..",
                    json!("x"),
                    "data[..]: Invalid value: \"..\": must not be '..'",
                ),
            ],
        );
        refuses_update(
            "ConfigMap",
            &with(&good("ConfigMap"), "/immutable", json!(true)),
            &[
                (
                    "/data/key",
                    json!("x"),
                    "data: Forbidden: field is immutable when `immutable` is set",
                ),
                (
                    "/immutable",
                    json!(false),
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                ),
            ],
        );
    }
}
