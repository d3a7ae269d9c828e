//! Validation of containers.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{entries, int, list, text};
use super::super::names;
use super::super::path::Path;
use super::super::values;
use super::spec::{amounts, choice};
use super::{env, probe, volume};

/// Which list of the pod a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Regular,
    Init,
    Ephemeral,
}

pub(in crate::kinds) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// `volumes`: the names that mounts may use; `grace`: the pod's
/// terminationGracePeriodSeconds.
pub(super) fn validate(
    container: &Value,
    role: Role,
    volumes: &[&str],
    grace: Option<i64>,
    path: &Path,
    errors: &mut Errors,
) {
    match text(container, "name") {
        "" => errors.required(&path.child("name"), ""),
        name => errors.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    choice(
        container,
        "terminationMessagePolicy",
        &policies,
        path,
        errors,
    );
    let policies = ["Always", "IfNotPresent", "Never"];
    choice(container, "imagePullPolicy", &policies, path, errors);
    ports(container, &path.child("ports"), errors);
    env::validate(container, path, errors);
    volume::validate_mounts(container, volumes, path, errors);
    resources(container, path, errors);
    restart_policy(container, role, path, errors);
    if role == Role::Regular || is_sidecar(container) {
        probe::validate_all(container, grace, path, errors);
    } else {
        not_for(container, role, path, errors);
    }
}

/// An init container that keeps running beside the regular ones.
fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn restart_policy(container: &Value, role: Role, path: &Path, errors: &mut Errors) {
    let path = path.child("restartPolicy");
    match (role, text(container, "restartPolicy")) {
        (_, "") => {}
        (Role::Init, "Always" | "Never" | "OnFailure") => {}
        (Role::Init, other) => {
            errors.not_supported(&path, other, &["Always", "Never", "OnFailure"]);
        }
        (Role::Regular, "Always" | "Never" | "OnFailure") => {}
        (Role::Regular, other) => {
            errors.not_supported(&path, other, &["Always", "Never", "OnFailure"]);
        }
        (Role::Ephemeral, _) => {
            errors.forbidden(&path, "cannot be set for an Ephemeral Container");
        }
    }
}

/// Fields of long-running containers on one that is not.
fn not_for(container: &Value, role: Role, path: &Path, errors: &mut Errors) {
    let (fields, detail): (&[&str], _) = match role {
        Role::Ephemeral => (
            &[
                "ports",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
                "lifecycle",
            ],
            "cannot be set for an Ephemeral Container",
        ),
        _ => (
            &[
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ],
            "may not be set for init containers without restartPolicy=Always",
        ),
    };
    for field in fields {
        if container.get(field).is_some() {
            errors.forbidden(&path.child(field), detail);
        }
    }
}

fn ports(container: &Value, path: &Path, errors: &mut Errors) {
    let mut taken = Vec::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && taken.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            errors.invalid_all(&path.child("name"), name, wrong);
            taken.push(name);
        }
        match int(port, "containerPort").unwrap_or_default() {
            0 => errors.required(&path.child("containerPort"), ""),
            number => port_number(number, &path.child("containerPort"), errors),
        }
        if let Some(number) = int(port, "hostPort") {
            port_number(number, &path.child("hostPort"), errors);
        }
        choice(port, "protocol", PROTOCOLS, &path, errors);
    }
}

/// A port number in a field.
pub(in crate::kinds) fn port_number(number: i64, path: &Path, errors: &mut Errors) {
    for message in names::port_number(number) {
        errors.invalid(path, number, &message);
    }
}

/// A port by number or by name.
pub(in crate::kinds) fn port_or_name(port: &Value, path: &Path, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.invalid_all(path, name, names::port_name(name)),
        number => port_number(number.as_i64().unwrap_or_default(), path, errors),
    }
}

/// Adds the container's host ports to those of the pod.
pub(super) fn unique_host_ports(
    container: &Value,
    taken: &mut Vec<String>,
    path: &Path,
    errors: &mut Errors,
) {
    for (index, port) in list(container, "ports").iter().enumerate() {
        if let Some(number) = int(port, "hostPort") {
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if taken.contains(&key) {
                let path = path.child("ports").index(index).child("hostPort");
                errors.duplicate(&path, key);
            } else {
                taken.push(key);
            }
        }
    }
}

fn resources(container: &Value, path: &Path, errors: &mut Errors) {
    let resources = &container["resources"];
    let path = path.child("resources");
    amounts(resources, "limits", &path, errors);
    amounts(resources, "requests", &path, errors);
    for (name, request) in entries(resources, "requests") {
        let request = request.as_str().unwrap_or_default();
        let limit = resources["limits"][name].as_str().unwrap_or_default();
        if let (Some(asked), Some(most)) = (values::amount(request), values::amount(limit))
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&path.child("requests"), request, &detail);
        }
    }
}
