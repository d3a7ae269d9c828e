//! Validation of a PodSpec.

use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::{entries, flag, int, list, text, texts};
use super::super::labels;
use super::super::names;
use super::super::path::Path;
use super::super::values;
use super::container::{self, Role};
use super::{scheduling, volume};

/// Where a PodSpec stands: some rules are for pods only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Pod,
    Template,
}

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];

pub(super) fn validate(spec: &Value, path: &Path, of: Of, errors: &mut Errors) {
    volume::validate_all(spec, path, errors);
    containers(spec, path, of, errors);
    choice(spec, "restartPolicy", RESTART_POLICIES, path, errors);
    choice(spec, "dnsPolicy", DNS_POLICIES, path, errors);
    dns_config(spec, path, errors);
    labels::validate(spec, "nodeSelector", path, errors);
    names_of_others(spec, path, errors);
    if flag(spec, "hostNetwork") {
        host_network(spec, path, of, errors);
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        let path = path.child("activeDeadlineSeconds");
        for message in names::in_range(seconds, 1, i32::MAX.into()) {
            errors.invalid(&path, seconds, &message);
        }
    }
    if let Some(seconds) = int(spec, "terminationGracePeriodSeconds")
        && seconds < 0
    {
        let path = path.child("terminationGracePeriodSeconds");
        errors.invalid(&path, seconds, "must be greater than or equal to 0");
    }
    host_aliases(spec, &path.child("hostAliases"), errors);
    scheduling::validate(spec, path, errors);
}

/// A field that must hold one of a few words.
pub(in crate::kinds) fn choice(
    object: &Value,
    field: &str,
    supported: &[&str],
    path: &Path,
    errors: &mut Errors,
) {
    match text(object, field) {
        "" => errors.required(&path.child(field), ""),
        given if supported.contains(&given) => {}
        other => errors.not_supported(&path.child(field), other, supported),
    }
}

fn containers(spec: &Value, path: &Path, of: Of, errors: &mut Errors) {
    let volumes = volume::names(spec);
    let grace = int(spec, "terminationGracePeriodSeconds");
    let mut taken: Vec<&str> = Vec::new();
    if list(spec, "containers").is_empty() {
        errors.required(&path.child("containers"), "");
    }
    for (field, role) in [
        ("containers", Role::Regular),
        ("initContainers", Role::Init),
        ("ephemeralContainers", Role::Ephemeral),
    ] {
        let path = path.child(field);
        let mut host_ports = Vec::new();
        for (index, container) in list(spec, field).iter().enumerate() {
            let path = path.index(index);
            container::validate(container, role, &volumes, grace, &path, errors);
            let name = text(container, "name");
            if taken.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            } else if !name.is_empty() {
                taken.push(name);
            }
            // Init containers run one by one: theirs may repeat.
            if role == Role::Init {
                host_ports.clear();
            }
            container::unique_host_ports(container, &mut host_ports, &path, errors);
            let image = text(container, "image");
            if of == Of::Pod && image.trim() != image {
                let path = path.child("image");
                errors.invalid(&path, image, "must not have leading or trailing whitespace");
            }
        }
    }
}

/// Names of objects and hosts that the spec mentions.
fn names_of_others(spec: &Value, path: &Path, errors: &mut Errors) {
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 6] = [
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ];
    for (field, check) in checks {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.invalid_all(&path.child(field), name, check(name));
        }
    }
}

fn dns_config(spec: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = texts(config, "nameservers");
    let servers_path = path.child("nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            return errors.required(&path, detail);
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&servers_path, detail);
        }
    }
    if servers.len() > 3 {
        let given = config["nameservers"].clone();
        errors.invalid(
            &servers_path,
            given,
            "must not have more than 3 nameservers",
        );
    }
    for (index, server) in servers.iter().enumerate() {
        address::ip(&servers_path.index(index), server, errors);
    }
    searches(config, &path.child("searches"), errors);
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

/// Limits of the C library's resolver.
fn searches(config: &Value, path: &Path, errors: &mut Errors) {
    let searches = texts(config, "searches");
    let given = || config["searches"].clone();
    if searches.len() > 32 {
        errors.invalid(path, given(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let detail =
            "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(path, given(), detail);
    }
    for (index, search) in searches.into_iter().enumerate() {
        if search != "." {
            // Search domains may have underscores, host names not.
            let name = search.trim_end_matches('.').replace('_', "a");
            errors.invalid_all(&path.index(index), search, names::dns_subdomain(&name));
        }
    }
}

fn host_network(spec: &Value, path: &Path, of: Of, errors: &mut Errors) {
    for (index, container) in list(spec, "containers").iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let host = int(port, "hostPort").unwrap_or_default();
            let needed = of == Of::Pod || host != 0;
            if needed && host != int(port, "containerPort").unwrap_or_default() {
                let path = path.index(index).child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path, host, detail);
            }
        }
    }
}

fn host_aliases(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = path.index(index);
        address::ip(&path.child("ip"), text(alias, "ip"), errors);
        for (index, name) in texts(alias, "hostnames").into_iter().enumerate() {
            let path = path.child("hostnames").index(index);
            errors.invalid_all(&path, name, names::dns_subdomain(name));
        }
    }
}

/// A map of amounts: known names, not negative.
pub(super) fn amounts(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    for (name, amount) in entries(object, field) {
        let path = path.child(field).key(name);
        errors.invalid_all(&path, name, names::label_key(name));
        let text = amount.as_str().unwrap_or_default();
        if values::amount(text).is_some_and(|n| n < 0.0) {
            errors.invalid(&path, text, "must be greater than or equal to 0");
        }
    }
}
