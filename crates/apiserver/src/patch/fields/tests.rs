use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::schema::object;

fn set(paths: &[&[&str]]) -> FieldSet {
    let mut set = FieldSet::default();
    for path in paths {
        let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
        set.insert(&path);
    }
    set
}

#[test]
fn wire_form() {
    let wire = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
    });
    let fields = FieldSet::from_json(&wire);
    assert_eq!(fields.to_json(), wire);
    let paths: Vec<String> = fields.paths().iter().map(ToString::to_string).collect();
    assert_eq!(
        paths,
        [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
    // Another writer's order of keys names the same item.
    let other = json!({"k:{\"protocol\": \"TCP\", \"port\": 80}": {}});
    let one = json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {}});
    assert_eq!(FieldSet::from_json(&other), FieldSet::from_json(&one));
}

#[test]
fn parents() {
    let type_ = Type::Object(object("apps", "Deployment"));
    let set = set(&[&["f:spec", "f:template", "f:metadata", "f:labels", "f:app"]]);
    let with = set.with_parents(&type_);
    let paths: Vec<String> = with.paths().iter().map(ToString::to_string).collect();
    assert_eq!(
        paths,
        [
            ".spec",
            ".spec.template",
            ".spec.template.metadata",
            ".spec.template.metadata.labels",
            ".spec.template.metadata.labels.app",
        ]
    );
}

fn sets() -> impl Strategy<Value = FieldSet> {
    let path = prop::collection::vec("f:[a-c]", 1..4);
    prop::collection::vec(path, 0..6).prop_map(|paths| {
        let mut set = FieldSet::default();
        for path in paths {
            set.insert(&path);
        }
        set
    })
}

proptest! {
    #[test]
    fn sets_are_sets(a in sets(), b in sets()) {
        let members = |set: &FieldSet| set.paths().into_iter().collect::<std::collections::BTreeSet<_>>();
        let (in_a, in_b) = (members(&a), members(&b));
        prop_assert_eq!(members(&a.union(&b)), in_a.union(&in_b).cloned().collect());
        prop_assert_eq!(members(&a.intersection(&b)), in_a.intersection(&in_b).cloned().collect());
        prop_assert_eq!(members(&a.difference(&b)), in_a.difference(&in_b).cloned().collect());
        prop_assert_eq!(a.difference(&a), FieldSet::default());
        prop_assert_eq!(FieldSet::from_json(&a.to_json()), a);
    }
}
