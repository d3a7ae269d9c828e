//! Namespaces, Nodes, Leases and Events.

use ipnet::IpNet;
use serde_json::Value;

use super::address;
use super::error::Errors;
use super::get::{int, list, object_mut, set, text, texts};
use super::names::{self, NameRule};
use super::path::Path;
use super::rules::{Builtin, PLAIN};

/// Label by which selectors find a namespace by its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) static NAMESPACE: Builtin = Builtin {
    name: NameRule::Label,
    default: |namespace| {
        let name = namespace["metadata"]["name"].clone();
        let labels = object_mut(object_mut(namespace, "metadata"), "labels");
        set(labels, NAME_LABEL, Some(name));
    },
    ..PLAIN
};

pub(super) static NODE: Builtin = Builtin {
    default: node_defaults,
    validate: validate_node,
    validate_update: validate_node_update,
    ..PLAIN
};

pub(super) static LEASE: Builtin = Builtin {
    validate: validate_lease,
    ..PLAIN
};

pub(super) static EVENT: Builtin = Builtin {
    validate: validate_event,
    ..PLAIN
};

/// `podCIDR` is the first of `podCIDRs`; either may be given.
fn node_defaults(node: &mut Value) {
    let spec = object_mut(node, "spec");
    let one = spec.get("podCIDR").cloned();
    let first = spec.pointer("/podCIDRs/0").cloned();
    match (one, first) {
        (Some(one), None) => set(spec, "podCIDRs", Some(Value::Array(vec![one]))),
        (None, Some(first)) => set(spec, "podCIDR", Some(first)),
        _ => {}
    }
}

fn validate_node(node: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &node["spec"];
    let blocks = texts(spec, "podCIDRs");
    let blocks_path = path.child("podCIDRs");
    let parsed: Vec<Option<IpNet>> = blocks
        .iter()
        .enumerate()
        .map(|(index, block)| address::block(&blocks_path.index(index), block, errors))
        .collect();
    let given = || spec["podCIDRs"].clone();
    let families = parsed.iter().flatten().map(|block| block.addr().is_ipv4());
    let families: Vec<bool> = families.collect();
    if families.len() > 2 || matches!(families[..], [one, other] if one == other) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid(&blocks_path, given(), detail);
    }
    if !blocks.is_empty() && blocks[0] != text(spec, "podCIDR") {
        let detail = "first value must match `podCIDR`";
        errors.invalid(&blocks_path, given(), detail);
    }
    taints(spec, &path.child("taints"), errors);
}

fn taints(spec: &Value, path: &Path, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let taints = list(spec, "taints");
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (
            text(taint, "key"),
            text(taint, "value"),
            text(taint, "effect"),
        );
        errors.invalid_all(&path.child("key"), key, names::label_key(key));
        errors.invalid_all(&path.child("value"), value, names::label_value(value));
        match effect {
            "" => errors.required(&path.child("effect"), ""),
            _ if EFFECTS.contains(&effect) => {}
            _ => errors.not_supported(&path.child("effect"), effect, EFFECTS),
        }
        let twin = |other: &Value| text(other, "key") == key && text(other, "effect") == effect;
        if taints[..index].iter().any(twin) {
            errors.duplicate(&path, taint.clone());
        }
    }
}

/// A node's block may be given once; its pods have addresses of it.
fn validate_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["podCIDRs", "providerID"] {
        let (new, old) = (new["spec"].get(field), old["spec"].get(field));
        if old.is_some() && new != old {
            let path = Path::root("spec").child(field);
            errors.forbidden(&path, "node updates may not change it once it is set");
        }
    }
}

fn validate_lease(lease: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &lease["spec"];
    if let Some(seconds) = int(spec, "leaseDurationSeconds")
        && seconds <= 0
    {
        let path = path.child("leaseDurationSeconds");
        errors.invalid(&path, seconds, "must be greater than 0");
    }
    if let Some(count) = int(spec, "leaseTransitions")
        && count < 0
    {
        let path = path.child("leaseTransitions");
        errors.invalid(&path, count, "must be greater than or equal to 0");
    }
}

/// An event stands in the namespace of the object that it is about.
fn validate_event(event: &Value, errors: &mut Errors) {
    let about = text(&event["involvedObject"], "namespace");
    let namespace = text(&event["metadata"], "namespace");
    // Events of objects without a namespace may be in any.
    if !about.is_empty() && namespace != about {
        errors.invalid(
            &Path::root("involvedObject").child("namespace"),
            about,
            "does not match event.namespace",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, refuses, refuses_update};
    use serde_json::json;

    #[test]
    fn namespaces_have_their_name_as_label() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        let namespace = create("Namespace", namespace).unwrap();
        assert_eq!(
            namespace["metadata"]["labels"],
            json!({"kubernetes.io/metadata.name": "a"})
        );
    }

    #[test]
    fn nodes() {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.1.0/24"},
        });
        assert_eq!(
            create("Node", node.clone()).unwrap()["spec"]["podCIDRs"],
            json!(["10.244.1.0/24"])
        );
        refuses(
            "Node",
            &node,
            &[
                (
                    "/spec/podCIDRs",
                    json!(["10.0.0.0/24"]),
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\"]: first value must match `podCIDR`",
                ),
                (
                    "/spec/podCIDRs",
                    json!(["10.244.1.0/24", "10.0.0.0/24"]),
                    "spec.podCIDRs: Invalid value: [\"10.244.1.0/24\",\"10.0.0.0/24\"]: may specify no more than one CIDR for each IP family",
                ),
                (
                    "/spec/taints",
                    json!([{"key": "a", "effect": "X"}]),
                    "spec.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ),
            ],
        );
        refuses_update(
            "Node",
            &node,
            &[(
                "/spec",
                json!({"podCIDR": "10.0.0.0/24"}),
                "spec.podCIDRs: Forbidden: node updates may not change it once it is set",
            )],
        );
    }

    #[test]
    fn events_are_where_their_objects_are() {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "a"},
            "involvedObject": {"kind": "Pod", "namespace": "a", "name": "p"},
        });
        refuses(
            "Event",
            &event,
            &[(
                "/involvedObject/namespace",
                json!("b"),
                "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace",
            )],
        );
    }
}
