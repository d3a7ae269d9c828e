//! Endpoints, the older form of EndpointSlices.

use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::{default, int, list, list_mut, text};
use super::super::names;
use super::super::path::Path;
use super::super::pod::{PROTOCOLS, choice, port_number};
use super::super::rules::{Builtin, PLAIN};

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    validate,
    ..PLAIN
};

fn defaults(endpoints: &mut Value) {
    for subset in list_mut(endpoints, "subsets") {
        for port in list_mut(subset, "ports") {
            default(port, "protocol", "TCP");
        }
    }
}

fn validate(endpoints: &Value, errors: &mut Errors) {
    for (index, subset) in list(endpoints, "subsets").iter().enumerate() {
        let path = Path::root("subsets").index(index);
        let ready = list(subset, "addresses");
        let not_ready = list(subset, "notReadyAddresses");
        if ready.is_empty() && not_ready.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (index, entry) in addresses.iter().enumerate() {
                one_address(entry, &path.child(field).index(index), errors);
            }
        }
        let ports = list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            one_port(
                port,
                ports.len() > 1,
                &path.child("ports").index(index),
                errors,
            );
        }
    }
}

fn one_address(entry: &Value, path: &Path, errors: &mut Errors) {
    let ip_path = path.child("ip");
    if let Some(ip) = address::ip(&ip_path, text(entry, "ip"), errors) {
        address::not_special(&ip_path, ip, errors);
    }
    let hostname = text(entry, "hostname");
    if !hostname.is_empty() {
        errors.invalid_all(
            &path.child("hostname"),
            hostname,
            names::dns_label(hostname),
        );
    }
}

fn one_port(port: &Value, need_name: bool, path: &Path, errors: &mut Errors) {
    match text(port, "name") {
        "" if need_name => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.invalid_all(&path.child("name"), name, names::dns_label(name)),
    }
    let number = int(port, "port").unwrap_or_default();
    port_number(number, &path.child("port"), errors);
    choice(port, "protocol", PROTOCOLS, path, errors);
}
