//! Changes of a Service (`k8s.io/kubernetes/pkg/registry/core/service`).

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{int, list, list_mut, set, text, texts};
use super::super::metadata::IMMUTABLE;
use super::super::path::Path;
use super::{externally_accessible, is_headless, is_type, needs_health_check};

/// Keeps what was allocated for the old version and is still needed, and clears
/// what was only there for its type.
pub(super) fn keep(new: &mut Value, old: &Value) {
    let (Some(new), Some(old)) = (new.get_mut("spec"), old.get("spec")) else {
        return;
    };
    normalize_cluster_ips(new, old);
    keep_allocated(new, old);
    clear_foreign(new, old);
}

fn needs_cluster_ip(spec: &Value) -> bool {
    !is_type(spec, "ExternalName")
}

fn needs_node_ports(spec: &Value) -> bool {
    is_type(spec, "NodePort") || is_type(spec, "LoadBalancer")
}

/// A client that knows only `clusterIP`, or changes only that, means both.
fn normalize_cluster_ips(new: &mut Value, old: &Value) {
    let (one, was) = (new.get("clusterIP").cloned(), old.get("clusterIP"));
    let (many, were) = (texts(new, "clusterIPs"), texts(old, "clusterIPs"));
    match one {
        // Cleared, while the list was sent as it had been read.
        None if was.is_some() && many == were => set(new, "clusterIPs", None),
        Some(one) if Some(&one) != was && (many == were || many.is_empty()) => {
            set(new, "clusterIPs", Some(Value::Array(vec![one])));
        }
        _ => {}
    }
}

fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if new.get("clusterIP").is_none() && new.get("clusterIPs").is_none() {
            set(new, "clusterIP", old.get("clusterIP").cloned());
        }
        if new.get("clusterIPs").is_none() && new.get("clusterIP") == old.get("clusterIP") {
            set(new, "clusterIPs", old.get("clusterIPs").cloned());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if new.get(field).is_none() && new.get("clusterIP") == old.get("clusterIP") {
                set(new, field, old.get(field).cloned());
            }
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && new.get("healthCheckNodePort").is_none()
    {
        let port = old.get("healthCheckNodePort").cloned();
        set(new, "healthCheckNodePort", port);
    }
}

/// Ports are known by number and protocol; one that is still there keeps its
/// node port, unless another port of the new version names it.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let mut used: Vec<(Value, i64)> = list(new, "ports")
        .iter()
        .filter_map(|port| Some((port["protocol"].clone(), int(port, "nodePort")?)))
        .collect();
    for port in list_mut(new, "ports") {
        if int(port, "nodePort").is_some() {
            continue;
        }
        let twin = list(old, "ports")
            .iter()
            .find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
        if let Some(number) = twin.and_then(|old| int(old, "nodePort")) {
            let key = (port["protocol"].clone(), number);
            if !used.contains(&key) {
                set(port, "nodePort", Some(number.into()));
                used.push(key);
            }
        }
    }
}

/// When the type no longer has a field, and the field was sent as it had been
/// read, it goes with the type.
fn clear_foreign(new: &mut Value, old: &Value) {
    type Needs = fn(&Value) -> bool;
    let table: [(Needs, &[&str]); 4] = [
        (
            needs_cluster_ip,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        ),
        (needs_health_check, &["healthCheckNodePort"]),
        (externally_accessible, &["externalTrafficPolicy"]),
        (
            |spec| is_type(spec, "LoadBalancer"),
            &["allocateLoadBalancerNodePorts", "loadBalancerClass"],
        ),
    ];
    for (needs, fields) in table {
        if needs(old) && !needs(new) {
            for field in fields {
                if new.get(field) == old.get(field) {
                    set(new, field, None);
                }
            }
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) {
        let were: Vec<Option<i64>> = list(old, "ports").iter().map(node_port).collect();
        for port in list_mut(new, "ports") {
            if were.contains(&node_port(port)) {
                set(port, "nodePort", None);
            }
        }
    }
}

fn node_port(port: &Value) -> Option<i64> {
    int(port, "nodePort")
}

/// Addresses stay; a second one may come and go with the policy.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if !(is_headless(new) && is_headless(old)) {
            primary_stays(new, old, "clusterIPs", "clusterIP", &path, errors);
        }
        if !is_headless(new) && !is_headless(old) {
            primary_stays(new, old, "ipFamilies", "ipFamily", &path, errors);
        }
    }
    if is_type(new, "LoadBalancer") && is_type(old, "LoadBalancer") {
        let field = "loadBalancerClass";
        if new.get(field) != old.get(field) {
            let value = new.get(field).cloned().unwrap_or_default();
            errors.invalid(&path.child(field), value, "may not change once set");
        }
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && new.get("healthCheckNodePort") != old.get("healthCheckNodePort")
    {
        errors.forbidden(&path.child("healthCheckNodePort"), IMMUTABLE);
    }
}

/// `field` is a list whose first value may not change; a second one may be
/// added, and released by asking for a single stack.
fn primary_stays(
    new: &Value,
    old: &Value,
    field: &str,
    singular: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let (now, was) = (texts(new, field), texts(old, field));
    let given = || new.get(field).cloned().unwrap_or_default();
    let item = |index| path.child(field).index(index);
    match (now.first(), was.first()) {
        (None, Some(_)) => {
            let detail = format!("primary {singular} can not be unset");
            errors.invalid(&item(0), given(), &detail);
        }
        (Some(now), Some(was)) if now != was => {
            errors.invalid(&item(0), given(), "may not change once set");
        }
        _ => {}
    }
    if let ([_, now], [_, was]) = (&now[..], &was[..])
        && now != was
    {
        errors.invalid(&item(1), given(), "may not change once set");
    }
    if now.len() == 1 && was.len() == 2 && text(new, "ipFamilyPolicy") != "SingleStack" {
        let detail =
            format!("must be set to 'SingleStack' when releasing the secondary {singular}");
        let policy = new.get("ipFamilyPolicy").cloned().unwrap_or_default();
        errors.invalid(&path.child("ipFamilyPolicy"), policy, &detail);
    }
}
