use proptest::prelude::*;
use serde_json::{Value, json};

use super::compare::Comparison;
use super::*;
use crate::kinds::schema;
use crate::patch::fields::FieldSet;

fn pod_spec() -> Type {
    Type::Object(schema::object("", "PodSpec"))
}

fn paths(set: &FieldSet) -> Vec<String> {
    set.paths().iter().map(ToString::to_string).collect()
}

#[test]
fn fields_of_an_object() {
    let spec = json!({
        "hostname": "h",
        "nodeSelector": {"a": "b"},
        "securityContext": {},
        "tolerations": [{"key": "k"}],
        "containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}],
    });
    assert_eq!(
        paths(&fields_of(&spec, &pod_spec())),
        [
            ".containers[name=\"c\"]",
            ".containers[name=\"c\"].name",
            ".containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".containers[name=\"c\"].resources.limits.cpu",
            ".hostname",
            ".nodeSelector",
            ".securityContext",
            ".tolerations",
        ]
    );
}

#[test]
fn comparisons() {
    let before = json!({
        "hostname": "h", "subdomain": "s",
        "nodeSelector": {"a": "b"},
        "containers": [{"name": "a", "image": "1"}, {"name": "b"}],
    });
    let after = json!({
        "hostname": "i", "nodeName": "n",
        "nodeSelector": {"a": "c"},
        "containers": [{"name": "c"}, {"name": "a", "image": "1", "tty": true}],
    });
    let difference = compare(&before, &after, &pod_spec());
    assert_eq!(paths(&difference.modified), [".hostname", ".nodeSelector"]);
    assert_eq!(
        paths(&difference.added),
        [
            ".containers[name=\"a\"].tty",
            ".containers[name=\"c\"]",
            ".containers[name=\"c\"].name",
            ".nodeName",
        ]
    );
    assert_eq!(
        paths(&difference.removed),
        [
            ".containers[name=\"b\"]",
            ".containers[name=\"b\"].name",
            ".subdomain"
        ]
    );
}

#[test]
fn overlays() {
    let names = |spec: &Value| -> Vec<String> {
        let items = spec["containers"].as_array().unwrap().iter();
        items
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        json!({"containers": items})
    };
    for (under, over, expected) in [
        (&["a", "b"][..], &["a", "b"][..], &["a", "b"][..]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "x", "b"], &["a", "b"], &["a", "x", "b"]),
        (&["a", "b"], &["a", "n", "b"], &["a", "n", "b"]),
        (&["x"], &["a"], &["x", "a"]),
        (&["a", "x"], &["n", "a"], &["n", "a", "x"]),
    ] {
        let result = overlay(&list(under), &list(over), &pod_spec());
        assert_eq!(names(&result), expected, "{under:?} {over:?}");
    }
}

#[test]
fn items_must_be_told_apart() {
    for (spec, message) in [
        (
            json!({"containers": [{"image": "i"}]}),
            ".containers: element 0: associative list with keys has an element that omits key field \"name\"",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}]}),
            ".containers.ports: duplicate entries for key {\"containerPort\":1,\"protocol\":\"TCP\"}",
        ),
    ] {
        let error = check_items(&spec, &pod_spec()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

fn specs() -> impl Strategy<Value = Value> {
    let container = ("[a-c]", prop::option::of("[x-z]"), prop::option::of(0..2u8)).prop_map(
        |(name, image, port)| {
            let mut c = json!({"name": name});
            if let Some(image) = image {
                c["image"] = json!(image);
            }
            if let Some(port) = port {
                c["ports"] = json!([{"containerPort": port}]);
            }
            (name, c)
        },
    );
    let containers = prop::collection::vec(container, 0..4).prop_map(|list| {
        let mut seen = Vec::new();
        let mut kept = Vec::new();
        for (name, c) in list {
            if !seen.contains(&name) {
                seen.push(name);
                kept.push(c);
            }
        }
        kept
    });
    let maps = prop::option::of(prop::collection::btree_map("[a-b]", "[0-1]", 1..3));
    (containers, prop::option::of("[h-j]"), maps).prop_map(|(containers, hostname, overhead)| {
        let mut spec = json!({});
        if !containers.is_empty() {
            spec["containers"] = json!(containers);
        }
        if let Some(hostname) = hostname {
            spec["hostname"] = json!(hostname);
        }
        if let Some(overhead) = overhead {
            spec["overhead"] = json!(overhead);
        }
        spec
    })
}

proptest! {
    #[test]
    fn laws(a in specs(), b in specs()) {
        let type_ = pod_spec();
        // An overlay has all of the upper object, with its values.
        let merged = overlay(&a, &b, &type_);
        let of_b = fields_of(&b, &type_);
        prop_assert!(of_b.difference(&fields_of(&merged, &type_)).is_empty());
        let changed = compare(&merged, &b, &type_);
        prop_assert!(changed.changed().intersection(&of_b).is_empty());
        // It adds nothing else.
        let both = fields_of(&a, &type_).union(&of_b);
        prop_assert!(fields_of(&merged, &type_).difference(&both).is_empty());
        prop_assert_eq!(overlay(&merged, &b, &type_), merged.clone());
        // What differs is what is added, removed or modified.
        prop_assert_eq!(compare(&a, &a, &type_), Comparison::default());
        // Taking out all fields leaves nothing.
        let gone = fields_of(&a, &type_).with_parents(&type_);
        let left = remove(&a, &gone, &FieldSet::default(), &type_);
        let nothing = left.is_none_or(|left| left == json!({}));
        prop_assert!(nothing);
    }
}
