//! NetworkPolicies.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::address;
use super::super::error::Errors;
use super::super::get::{default, int, list, list_mut, object_mut, text, texts};
use super::super::labels;
use super::super::names;
use super::super::path::Path;
use super::super::pod::port_number;
use super::super::rules::{Builtin, PLAIN};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const TYPES: &[&str] = &["Ingress", "Egress"];

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    validate,
    ..PLAIN
};

fn defaults(policy: &mut Value) {
    let spec = object_mut(policy, "spec");
    for field in ["ingress", "egress"] {
        for rule in list_mut(spec, field) {
            for port in list_mut(rule, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    }
    // A policy without types is about what comes in; with egress rules also
    // about what goes out.
    let types = if list(spec, "egress").is_empty() {
        json!(["Ingress"])
    } else {
        json!(["Ingress", "Egress"])
    };
    default(spec, "policyTypes", types);
}

fn validate(policy: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &policy["spec"];
    labels::validate_selector(&spec["podSelector"], &path.child("podSelector"), errors);
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(index);
            for (index, one) in list(rule, "ports").iter().enumerate() {
                port(one, &path.child("ports").index(index), errors);
            }
            for (index, one) in list(rule, peers).iter().enumerate() {
                peer(one, &path.child(peers).index(index), errors);
            }
        }
    }
    let types = texts(spec, "policyTypes");
    let types_path = path.child("policyTypes");
    if types.len() > TYPES.len() {
        let given = spec["policyTypes"].clone();
        return errors.invalid(
            &types_path,
            given,
            "may not specify more than two policyTypes",
        );
    }
    for (index, type_) in types.into_iter().enumerate() {
        if !TYPES.contains(&type_) {
            errors.not_supported(&types_path.index(index), type_, TYPES);
        }
    }
}

fn port(port: &Value, path: &Path, errors: &mut Errors) {
    let protocol = text(port, "protocol");
    if !PROTOCOLS.contains(&protocol) {
        errors.not_supported(&path.child("protocol"), protocol, PROTOCOLS);
    }
    let first = port.get("port");
    let path_of = path.child("port");
    match first {
        Some(Value::String(name)) => errors.invalid_all(&path_of, name, names::port_name(name)),
        Some(number) => port_number(number.as_i64().unwrap_or_default(), &path_of, errors),
        None => {}
    }
    let Some(last) = int(port, "endPort") else {
        return;
    };
    let path = path.child("endPort");
    match first.map(Value::as_i64) {
        None => errors.invalid(
            &path,
            last,
            "may not be specified when `port` is not specified",
        ),
        Some(None) => {
            errors.invalid(
                &path,
                last,
                "may not be specified when `port` is non-numeric",
            );
        }
        Some(Some(first)) => {
            if last < first {
                errors.invalid(&path, last, "must be greater than or equal to `port`");
            }
            port_number(last, &path, errors);
        }
    }
}

fn peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.get(field) {
            selectors += 1;
            labels::validate_selector(selector, &path.child(field), errors);
        }
    }
    match peer.get("ipBlock") {
        Some(block) => {
            ip_block(block, &path.child("ipBlock"), errors);
            if selectors > 0 {
                errors.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
        None if selectors == 0 => errors.required(path, "must specify a peer"),
        None => {}
    }
}

fn ip_block(block: &Value, path: &Path, errors: &mut Errors) {
    let cidr_path = path.child("cidr");
    let cidr = match text(block, "cidr") {
        "" => return errors.required(&cidr_path, ""),
        value => address::block(&cidr_path, value, errors),
    };
    for (index, value) in texts(block, "except").into_iter().enumerate() {
        let path = path.child("except").index(index);
        let except = address::block(&path, value, errors);
        if let (Some(cidr), Some(except)) = (cidr, except)
            && !is_strictly_inside(except, cidr)
        {
            errors.invalid(&path, value, "must be a strict subset of `cidr`");
        }
    }
}

fn is_strictly_inside(inner: IpNet, outer: IpNet) -> bool {
    outer.contains(&inner) && inner.prefix_len() > outer.prefix_len()
}
