//! EndpointSlices.

use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::{default, int, list, list_mut, text, texts};
use super::super::metadata::IMMUTABLE;
use super::super::names;
use super::super::path::Path;
use super::super::pod::{PROTOCOLS, choice, port_number};
use super::super::rules::{Builtin, PLAIN};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    validate,
    validate_update,
    ..PLAIN
};

fn defaults(slice: &mut Value) {
    for port in list_mut(slice, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

fn validate(slice: &Value, errors: &mut Errors) {
    let root = Path::empty();
    choice(slice, "addressType", ADDRESS_TYPES, &root, errors);
    endpoints(slice, &root.child("endpoints"), errors);
    ports(slice, &root.child("ports"), errors);
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    if new.get("addressType") != old.get("addressType") {
        let path = Path::root("addressType");
        errors.invalid(&path, text(new, "addressType"), IMMUTABLE);
    }
}

fn endpoints(slice: &Value, path: &Path, errors: &mut Errors) {
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.too_many(path, endpoints.len(), MAX_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = texts(endpoint, "addresses");
        let addresses_path = path.child("addresses");
        if addresses.is_empty() {
            errors.required(&addresses_path, "must contain at least 1 address");
        }
        if addresses.len() > MAX_ADDRESSES {
            errors.too_many(&addresses_path, addresses.len(), MAX_ADDRESSES);
        }
        for (index, value) in addresses.into_iter().enumerate() {
            let type_ = text(slice, "addressType");
            one_address(value, type_, &addresses_path.index(index), errors);
        }
        let hostname = text(endpoint, "hostname");
        if !hostname.is_empty() {
            let path = path.child("hostname");
            errors.invalid_all(&path, hostname, names::dns_label(hostname));
        }
        let node = text(endpoint, "nodeName");
        if !node.is_empty() {
            errors.invalid_all(&path.child("nodeName"), node, names::dns_subdomain(node));
        }
    }
}

fn one_address(value: &str, type_: &str, path: &Path, errors: &mut Errors) {
    match type_ {
        "FQDN" => errors.invalid_all(path, value, names::dns_subdomain(value)),
        "IPv4" | "IPv6" => {
            let Some(ip) = address::ip(path, value, errors) else {
                return;
            };
            if ip.is_ipv4() != (type_ == "IPv4") {
                let detail = format!("must be a valid {type_} address");
                return errors.invalid(path, value, &detail);
            }
            address::not_special(path, ip, errors);
        }
        _ => {}
    }
}

fn ports(slice: &Value, path: &Path, errors: &mut Errors) {
    let ports = list(slice, "ports");
    if ports.len() > MAX_PORTS {
        return errors.too_many(path, ports.len(), MAX_PORTS);
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.invalid_all(&path.child("name"), name, names::dns_label(name));
        }
        if ports[..index]
            .iter()
            .any(|other| text(other, "name") == name)
        {
            errors.duplicate(&path.child("name"), name);
        }
        choice(port, "protocol", PROTOCOLS, &path, errors);
        if let Some(number) = int(port, "port") {
            port_number(number, &path.child("port"), errors);
        }
        let protocol = text(port, "appProtocol");
        if !protocol.is_empty() {
            let path = path.child("appProtocol");
            errors.invalid_all(&path, protocol, names::label_key(protocol));
        }
    }
}
