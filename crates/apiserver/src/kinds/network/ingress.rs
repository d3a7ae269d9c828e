//! Ingresses and IngressClasses.

use std::net::IpAddr;

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{int, list, text, texts};
use super::super::metadata::IMMUTABLE;
use super::super::names;
use super::super::path::Path;
use super::super::pod::port_number;
use super::super::rules::{Builtin, PLAIN};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const MAX_CONTROLLER: usize = 250;

pub(in crate::kinds) static RULES: Builtin = Builtin { validate, ..PLAIN };

pub(in crate::kinds) static CLASS_RULES: Builtin = Builtin {
    validate: validate_class,
    validate_update: validate_class_update,
    ..PLAIN
};

fn validate(ingress: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &ingress["spec"];
    let rules = list(spec, "rules");
    let default_backend = spec.get("defaultBackend");
    if rules.is_empty() && default_backend.is_none() {
        errors.invalid(
            &path,
            Value::Array(Vec::new()),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if let Some(found) = default_backend {
        backend(found, &path.child("defaultBackend"), errors);
    }
    for (index, one) in rules.iter().enumerate() {
        rule(one, &path.child("rules").index(index), errors);
    }
    tls(spec, &path.child("tls"), errors);
    let class = text(spec, "ingressClassName");
    if !class.is_empty() {
        let path = path.child("ingressClassName");
        errors.invalid_all(&path, class, names::dns_subdomain(class));
    }
}

fn rule(rule: &Value, path: &Path, errors: &mut Errors) {
    let name = text(rule, "host");
    let host_path = path.child("host");
    if name.parse::<IpAddr>().is_ok() {
        errors.invalid(&host_path, name, "must be a DNS name, not an IP address");
    } else if !name.is_empty() {
        errors.invalid_all(&host_path, name, host(name));
    }
    let Some(http) = rule.get("http") else {
        return;
    };
    let path = path.child("http").child("paths");
    let paths = list(http, "paths");
    if paths.is_empty() {
        errors.required(&path, "");
    }
    for (index, one) in paths.iter().enumerate() {
        http_path(one, &path.index(index), errors);
    }
}

fn host(name: &str) -> Vec<String> {
    if name.contains('*') {
        names::wildcard_subdomain(name)
    } else {
        names::dns_subdomain(name)
    }
}

fn http_path(object: &Value, path: &Path, errors: &mut Errors) {
    const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const BAD_ENDS: [&str; 2] = ["/..", "/."];
    let value = text(object, "path");
    let value_path = path.child("path");
    match text(object, "pathType") {
        "" => errors.required(&path.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.invalid(&value_path, value, "must be an absolute path");
            }
            for part in BAD_PARTS.into_iter().filter(|part| value.contains(part)) {
                errors.invalid(&value_path, value, &format!("must not contain '{part}'"));
            }
            for end in BAD_ENDS.into_iter().filter(|end| value.ends_with(end)) {
                errors.invalid(&value_path, value, &format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&value_path, value, "must be an absolute path");
            }
        }
        other => errors.not_supported(&path.child("pathType"), other, PATH_TYPES),
    }
    backend(&object["backend"], &path.child("backend"), errors);
}

/// A service's port, or some other resource.
fn backend(backend: &Value, path: &Path, errors: &mut Errors) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (None, Some(_)) => {}
        (Some(service), None) => service_backend(service, &path.child("service"), errors),
    }
}

fn service_backend(service: &Value, path: &Path, errors: &mut Errors) {
    match text(service, "name") {
        "" => errors.required(&path.child("name"), ""),
        name => errors.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    let port = &service["port"];
    let path = path.child("port");
    match (text(port, "name"), int(port, "number")) {
        ("", None) => errors.required(&path, "port name or number is required"),
        ("", Some(number)) => port_number(number, &path.child("number"), errors),
        (name, None) => errors.invalid_all(&path.child("name"), name, names::port_name(name)),
        _ => errors.invalid(&path, "", "cannot set both port name & port number"),
    }
}

fn tls(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, entry) in list(spec, "tls").iter().enumerate() {
        let path = path.index(index);
        for (index, name) in texts(entry, "hosts").into_iter().enumerate() {
            errors.invalid_all(&path.child("hosts").index(index), name, host(name));
        }
        let secret = text(entry, "secretName");
        if !secret.is_empty() {
            let path = path.child("secretName");
            errors.invalid_all(&path, secret, names::dns_subdomain(secret));
        }
    }
}

fn validate_class(class: &Value, errors: &mut Errors) {
    let path = Path::root("spec").child("controller");
    let controller = text(&class["spec"], "controller");
    if controller.len() > MAX_CONTROLLER {
        errors.too_long(&path, MAX_CONTROLLER);
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required(&path, ""),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.invalid_all(&path, domain, names::dns_subdomain(domain));
        }
        _ => errors.invalid(
            &path,
            controller,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    }
}

fn validate_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (&new["spec"]["controller"], &old["spec"]["controller"]);
    if new != old {
        let path = Path::root("spec").child("controller");
        errors.invalid(&path, new.clone(), IMMUTABLE);
    }
}
