//! Ports of a Service.

use serde_json::{Value, json};

use super::super::error::Errors;
use super::super::get::{int, list, text};
use super::super::names;
use super::super::path::Path;
use super::super::pod::{PROTOCOLS, choice, port_number, port_or_name};
use super::{is_headless, is_type};

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let ports = list(spec, "ports");
    if ports.is_empty() && !is_headless(spec) && !is_type(spec, "ExternalName") {
        errors.required(path, "");
    }
    for (index, port) in ports.iter().enumerate() {
        let item = path.index(index);
        one(port, ports.len() > 1, &item, errors);
        let before = &ports[..index];
        let same = |field: &str| before.iter().any(|p| p.get(field) == port.get(field));
        if !text(port, "name").is_empty() && same("name") {
            errors.duplicate(&item.child("name"), text(port, "name"));
        }
        let twin = |field: &str| {
            before.iter().any(|p| {
                p.get(field) == port.get(field) && text(p, "protocol") == text(port, "protocol")
            })
        };
        if let Some(number) = int(port, "nodePort")
            && twin("nodePort")
        {
            errors.duplicate(&item.child("nodePort"), number);
        }
        if twin("port") {
            let key = json!({"protocol": text(port, "protocol"), "port": port["port"]});
            errors.duplicate(&item, key);
        }
        if int(port, "nodePort").is_some() && is_type(spec, "ClusterIP") {
            errors.forbidden(
                &item.child("nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        }
    }
}

/// `need_name`: there are several ports.
fn one(port: &Value, need_name: bool, path: &Path, errors: &mut Errors) {
    match text(port, "name") {
        "" if need_name => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    let number = int(port, "port").unwrap_or_default();
    port_number(number, &path.child("port"), errors);
    choice(port, "protocol", PROTOCOLS, path, errors);
    // Missing only if the port is, which is an error already.
    if let Some(target) = port.get("targetPort") {
        port_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(number) = int(port, "nodePort") {
        port_number(number, &path.child("nodePort"), errors);
    }
    let protocol = text(port, "appProtocol");
    if !protocol.is_empty() {
        let path = path.child("appProtocol");
        errors.invalid_all(&path, protocol, names::label_key(protocol));
    }
}
