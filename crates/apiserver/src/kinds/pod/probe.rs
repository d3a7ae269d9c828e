//! Validation of probes and lifecycle hooks.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{int, list, text};
use super::super::names;
use super::super::path::Path;
use super::container::{port_number, port_or_name};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// The probes and hooks of a container. `grace`: the pod's
/// terminationGracePeriodSeconds.
pub(super) fn validate_all(
    container: &Value,
    grace: Option<i64>,
    path: &Path,
    errors: &mut Errors,
) {
    for hook in ["postStart", "preStop"] {
        let found = &container["lifecycle"][hook];
        if !found.is_null() {
            handler(found, grace, &path.child("lifecycle").child(hook), errors);
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get(field) {
            probe(found, field, grace, &path.child(field), errors);
        }
    }
}

fn probe(probe: &Value, kind: &str, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    handler(probe, grace, path, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        not_negative(probe, field, path, errors);
    }
    let seconds = int(probe, "terminationGracePeriodSeconds");
    let seconds_path = path.child("terminationGracePeriodSeconds");
    match seconds {
        Some(seconds) if seconds <= 0 => {
            errors.invalid(&seconds_path, seconds, "must be greater than 0");
        }
        Some(seconds) if kind == "readinessProbe" => {
            errors.invalid(
                &seconds_path,
                seconds,
                "must not be set for readinessProbes",
            );
        }
        _ => {}
    }
    // Once alive is alive.
    let successes = int(probe, "successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

/// A number that must be zero or more.
pub(in crate::kinds) fn not_negative(
    object: &Value,
    field: &str,
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(number) = int(object, field)
        && number < 0
    {
        let path = path.child(field);
        errors.invalid(&path, number, "must be greater than or equal to 0");
    }
}

/// Exactly one way to ask.
fn handler(object: &Value, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    let mut given = HANDLERS
        .into_iter()
        .filter_map(|field| Some((field, object.get(field)?)));
    let Some((field, action)) = given.next() else {
        return errors.required(path, "must specify a handler type");
    };
    one_handler(field, action, grace, &path.child(field), errors);
    for (field, _) in given {
        errors.forbidden(
            &path.child(field),
            "may not specify more than 1 handler type",
        );
    }
}

fn one_handler(field: &str, action: &Value, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    match field {
        "exec" => {
            if list(action, "command").is_empty() {
                errors.required(&path.child("command"), "");
            }
        }
        "httpGet" => http_get(action, path, errors),
        "tcpSocket" => port_or_name(&action["port"], &path.child("port"), errors),
        "grpc" => {
            let port = int(action, "port").unwrap_or_default();
            port_number(port, &path.child("port"), errors);
        }
        _ => {
            let seconds = int(action, "seconds").unwrap_or_default();
            let most = grace.unwrap_or(i64::MAX);
            if !(0..=most).contains(&seconds) {
                let detail = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({most})"
                );
                errors.invalid(path, seconds, &detail);
            }
        }
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut Errors) {
    const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
    if text(action, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_or_name(&action["port"], &path.child("port"), errors);
    let scheme = text(action, "scheme");
    if !SCHEMES.contains(&scheme) {
        errors.not_supported(&path.child("scheme"), scheme, SCHEMES);
    }
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        let path = path.child("httpHeaders");
        errors.invalid_all(&path, name, names::http_header_name(name));
    }
}
