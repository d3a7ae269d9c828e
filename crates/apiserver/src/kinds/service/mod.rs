//! Services.

mod cluster_ips;
mod defaults;
mod ports;
mod traffic;
mod update;

use serde_json::Value;

use super::address;
use super::error::Errors;
use super::get::{list, text, texts};
use super::labels;
use super::names::{self, NameRule};
use super::path::Path;
use super::pod::choice;
use super::rules::{Builtin, PLAIN};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// Since Kubernetes 1.36 a name may begin with a digit: an RFC 1123 label.
pub(super) static RULES: Builtin = Builtin {
    name: NameRule::Label,
    default: defaults::service,
    update: update::keep,
    validate,
    validate_update: update::validate,
    ..PLAIN
};

/// `clusterIP: None`.
fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || texts(spec, "clusterIPs") == ["None"]
}

fn is_type(spec: &Value, type_: &str) -> bool {
    text(spec, "type") == type_
}

/// NodePort and LoadBalancer services, and those with external addresses.
fn externally_accessible(spec: &Value) -> bool {
    is_type(spec, "LoadBalancer")
        || is_type(spec, "NodePort")
        || (is_type(spec, "ClusterIP") && !list(spec, "externalIPs").is_empty())
}

/// A load balancer that must know on which nodes there are endpoints.
fn needs_health_check(spec: &Value) -> bool {
    is_type(spec, "LoadBalancer") && text(spec, "externalTrafficPolicy") == "Local"
}

fn validate(service: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &service["spec"];
    choice(spec, "type", TYPES, &path, errors);
    if is_type(spec, "ExternalName") {
        external_name(spec, &path, errors);
    } else {
        cluster_ips::validate(spec, &path, errors);
    }
    if matches!(text(spec, "type"), "LoadBalancer" | "NodePort") && is_headless(spec) {
        let detail = format!(
            "may not be set to 'None' for {} services",
            text(spec, "type")
        );
        errors.invalid(&path.child("clusterIPs").index(0), "None", &detail);
    }
    ports::validate(spec, &path.child("ports"), errors);
    labels::validate(spec, "selector", &path, errors);
    for (index, ip) in texts(spec, "externalIPs").into_iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        if let Some(ip) = address::ip(&path, ip, errors) {
            address::not_special(&path, ip, errors);
        }
    }
    traffic::validate(spec, &path, errors);
}

/// A name outside of the cluster; there is no address.
fn external_name(spec: &Value, path: &Path, errors: &mut Errors) {
    let path_of = path.child("externalName");
    match text(spec, "externalName").trim_end_matches('.') {
        "" => errors.required(&path_of, ""),
        name => errors.invalid_all(&path_of, name, names::dns_subdomain(name)),
    }
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if spec.get(field).is_some() {
            let detail = "may not be set for ExternalName services";
            errors.forbidden(&path.child(field), detail);
        }
    }
}

#[cfg(test)]
mod tests;
