use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Writer, apply as apply_patch, track};
use super::*;
use crate::Status;
use crate::kinds::KindSpec;
use crate::kinds::testing::kind;

fn deployment() -> &'static KindSpec {
    kind("Deployment")
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    }
}

/// A Deployment with these fields.
fn config(spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    })
}

fn applied(live: Option<&Value>, manager: &str, spec: Value) -> Result<Value, Status> {
    apply_patch(deployment(), live, &config(spec), &writer(manager), false)
}

/// What a manager owns, by path.
fn owned(object: &Value, manager: &str) -> Vec<String> {
    let managers = Managers::of(object).0;
    let of = managers.iter().filter(|m| m.name == manager);
    of.flat_map(|m| m.fields.paths())
        .map(|path| path.to_string())
        .collect()
}

#[test]
fn an_apply_owns_what_it_says() {
    let web = applied(None, "me", json!({"replicas": 2, "paused": false})).unwrap();
    assert_eq!(web["spec"]["replicas"], 2);
    assert_eq!(owned(&web, "me"), [".spec.paused", ".spec.replicas"]);
    let entry = &web["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert_eq!(entry["time"], "2026-01-01T00:00:00Z");
}

#[test]
fn what_is_no_longer_applied_goes() {
    let web = applied(None, "me", json!({"replicas": 2, "minReadySeconds": 5})).unwrap();
    let web = applied(Some(&web), "me", json!({"minReadySeconds": 5})).unwrap();
    assert_eq!(web["spec"], json!({"minReadySeconds": 5}));
    // Unless another manager owns it too.
    let web = applied(Some(&web), "other", json!({"minReadySeconds": 5})).unwrap();
    let web = applied(Some(&web), "me", json!({"paused": true})).unwrap();
    assert_eq!(web["spec"], json!({"minReadySeconds": 5, "paused": true}));
    assert_eq!(owned(&web, "other"), [".spec.minReadySeconds"]);
}

#[test]
fn items_go_by_their_keys() {
    let containers = |names: &[&str]| {
        let list: Vec<Value> = names
            .iter()
            .map(|n| json!({"name": n, "image": "i"}))
            .collect();
        json!({"template": {"spec": {"containers": list}}})
    };
    let web = applied(None, "me", containers(&["a", "b"])).unwrap();
    let web = applied(Some(&web), "injector", containers(&["side"])).unwrap();
    let web = applied(Some(&web), "me", containers(&["b"])).unwrap();
    let list = web["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap();
    let names: Vec<&str> = list.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "side"]);
}

#[test]
fn conflicts_name_the_field_and_its_owner() {
    let web = applied(None, "me", json!({"replicas": 2})).unwrap();
    let status = applied(Some(&web), "you", json!({"replicas": 3})).unwrap_err();
    assert_eq!(status.code(), 409);
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas"
    );
    let cause = &status.causes()[0];
    assert_eq!(cause.reason, crate::CauseReason::FieldManagerConflict);
    assert_eq!(cause.field, ".spec.replicas");
    assert_eq!(cause.message, "conflict with \"me\"");
    // The same value is shared.
    let shared = applied(Some(&web), "you", json!({"replicas": 2})).unwrap();
    assert_eq!(owned(&shared, "me"), owned(&shared, "you"));
    // Force takes it.
    let forced = config(json!({"replicas": 3}));
    let web = apply_patch(deployment(), Some(&web), &forced, &writer("you"), true).unwrap();
    assert_eq!(web["spec"]["replicas"], 3);
    assert_eq!(owned(&web, "me"), Vec::<String>::new());
}

#[test]
fn conflicts_with_several() {
    let web = applied(None, "a", json!({"replicas": 2})).unwrap();
    let mut web = applied(Some(&web), "b", json!({"paused": true})).unwrap();
    let before = web.clone();
    web["spec"]["minReadySeconds"] = json!(4);
    track(deployment(), Some(&before), &mut web, &writer("edit"));
    let wanted = json!({"replicas": 3, "paused": false, "minReadySeconds": 5});
    let status = applied(Some(&web), "me", wanted).unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.replicas\nconflicts with \"b\":\n- .spec.paused\nconflicts with \"edit\" using apps/v1:\n- .spec.minReadySeconds"
    );
}

#[test]
fn an_update_owns_what_it_changed() {
    let web = applied(None, "me", json!({"replicas": 2, "minReadySeconds": 5})).unwrap();
    let mut scaled = web.clone();
    scaled["spec"]["replicas"] = json!(4);
    track(deployment(), Some(&web), &mut scaled, &writer("scale"));
    assert_eq!(owned(&scaled, "me"), [".spec.minReadySeconds"]);
    assert_eq!(owned(&scaled, "scale"), [".spec.replicas"]);
    // Whoever no longer mentions it leaves it alone.
    let again = applied(Some(&scaled), "me", json!({"minReadySeconds": 5})).unwrap();
    assert_eq!(again["spec"]["replicas"], 4);
    // Removing a field removes it from its owners.
    let mut less = again.clone();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    track(deployment(), Some(&again), &mut less, &writer("edit"));
    assert_eq!(owned(&less, "scale"), Vec::<String>::new());
}

#[test]
fn a_new_object_is_its_creators() {
    let mut web = config(json!({"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}}));
    track(deployment(), None, &mut web, &writer("create"));
    assert_eq!(
        owned(&web, "create"),
        [
            ".spec.replicas",
            ".spec.template.metadata.labels",
            ".spec.template.metadata.labels.a"
        ]
    );
}

#[test]
fn values_that_are_the_same_do_not_conflict() {
    let resources = |cpu: Value| json!({"template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}}});
    let web = applied(None, "me", resources(json!("1"))).unwrap();
    assert!(applied(Some(&web), "you", resources(json!(1))).is_ok());
    // A zero value replaces another, and is then not written.
    let web = applied(None, "me", json!({"paused": true})).unwrap();
    let web = applied(Some(&web), "me", json!({"paused": false})).unwrap();
    assert_eq!(web["spec"].get("paused"), None);
    assert_eq!(owned(&web, "me"), [".spec.paused"]);
    let again = applied(Some(&web), "me", json!({"paused": false})).unwrap();
    assert_eq!(again, web);
}

#[test]
fn status_is_a_part_of_its_own() {
    let mut body = config(json!({"replicas": 1}));
    body["status"] = json!({"replicas": 7});
    let web = apply_patch(deployment(), None, &body, &writer("me"), false).unwrap();
    assert_eq!(web.get("status"), None);
    let of_status = Writer {
        subresource: "status",
        ..writer("me")
    };
    let web = apply_patch(deployment(), Some(&web), &body, &of_status, false).unwrap();
    assert_eq!(web["status"]["replicas"], 7);
    let entries = web["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().any(|e| e["subresource"] == "status"));
}

#[test]
fn what_cannot_be_applied() {
    let mut unknown = config(json!({"replicas": 1}));
    unknown["spec"]["replica"] = json!(1);
    let mut managed = config(json!({}));
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    for (body, message) in [
        (
            unknown,
            "failed to create typed patch object (web; apps/v1, Kind=Deployment): unknown field \"spec.replica\": field not declared in schema",
        ),
        (managed, "metadata.managedFields must be nil"),
        (
            config(json!({"template": {"spec": {"containers": [{"image": "i"}]}}})),
            "failed to create typed patch object (web; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\"",
        ),
        (json!([]), "the patch of a Deployment must be an object"),
    ] {
        let status = apply_patch(deployment(), None, &body, &writer("me"), false).unwrap_err();
        assert_eq!((status.code(), status.message.as_str()), (400, message));
    }
}

#[test]
fn from_client_side_apply() {
    // As `kubectl apply` leaves it.
    let mut web = config(json!({"replicas": 1, "minReadySeconds": 5}));
    let last = format!("{web}\n");
    web["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    track(
        deployment(),
        None,
        &mut web,
        &writer("kubectl-client-side-apply"),
    );
    // Others conflict, kubectl's server-side apply takes over.
    let spec = json!({"replicas": 2, "minReadySeconds": 5});
    assert!(applied(Some(&web), "other", spec.clone()).is_err());
    let upgraded = applied(Some(&web), "kubectl", spec.clone()).unwrap();
    assert_eq!(upgraded["spec"]["replicas"], 2);
    let annotation =
        &upgraded["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(*annotation, format!("{}\n", config(spec.clone())));
    // But not what somebody else changed in between.
    let mut scaled = web.clone();
    scaled["spec"]["replicas"] = json!(9);
    track(deployment(), Some(&web), &mut scaled, &writer("scale"));
    assert!(applied(Some(&scaled), "kubectl", spec).is_err());
}

#[test]
fn a_client_may_rewrite_the_managers() {
    let mut web = config(json!({"replicas": 1}));
    track(deployment(), None, &mut web, &writer("old"));
    let mut moved = web.clone();
    moved["metadata"]["managedFields"][0]["manager"] = json!("new");
    track(deployment(), Some(&web), &mut moved, &writer("kubectl"));
    assert_eq!(owned(&moved, "new"), [".spec.replicas"]);
    assert_eq!(owned(&moved, "old"), Vec::<String>::new());
    let mut reset = web.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track(deployment(), Some(&web), &mut reset, &writer("kubectl"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

/// A part of a Deployment's spec.
fn specs() -> impl Strategy<Value = Value> {
    let container = ("[a-c]", "[x-z]").prop_map(|(name, image)| (name, image));
    let containers = prop::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let _ = container;
    (
        prop::option::of(1..4u8),
        prop::option::of(1..4u8),
        containers,
        prop::option::of("[p-q]"),
    )
        .prop_map(|(replicas, ready, containers, label)| {
            let mut spec = json!({});
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            if let Some(ready) = ready {
                spec["minReadySeconds"] = json!(ready);
            }
            if !containers.is_empty() {
                let list: Vec<Value> = containers
                    .iter()
                    .map(|(name, image)| json!({"name": name, "image": image}))
                    .collect();
                spec["template"]["spec"]["containers"] = json!(list);
            }
            if let Some(label) = label {
                spec["template"]["metadata"]["labels"] = json!({"app": label});
            }
            spec
        })
}

proptest! {
    /// Applying twice is applying once.
    #[test]
    fn idempotent(a in specs(), b in specs()) {
        let one = applied(None, "a", a).unwrap();
        let two = apply_patch(deployment(), Some(&one), &config(b.clone()), &writer("b"), true).unwrap();
        let again = apply_patch(deployment(), Some(&two), &config(b), &writer("b"), true).unwrap();
        prop_assert_eq!(again, two);
    }

    /// Through any history of applies: what is applied is there; every field has
    /// an owner; an owner owns only what is there; the last apply of a lone
    /// manager is all that is left.
    #[test]
    fn ownership(history in prop::collection::vec((0..3usize, specs()), 1..8)) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let type_ = crate::kinds::schema::Type::Object(deployment().schema.clone());
        let mut live: Option<Value> = None;
        let mut latest: BTreeMap<usize, Value> = BTreeMap::new();
        for (who, spec) in history {
            let body = config(spec.clone());
            let result = apply_patch(deployment(), live.as_ref(), &body, &writer(NAMES[who]), true).unwrap();
            latest.insert(who, spec);
            let there = without_system_fields(super::super::typed::fields_of(&bare(&result), &type_));
            let with_parents = there.with_parents(&type_);
            let mut all = FieldSet::default();
            for manager in &Managers::of(&result).0 {
                let stray = manager.fields.difference(&with_parents).paths();
 prop_assert!(stray.is_empty(), "{} owns {stray:?}", manager.name);
                all = all.union(&manager.fields);
            }
            prop_assert!(there.difference(&all).is_empty(), "nobody owns {:?}", there.difference(&all).paths());
            let mine = super::super::typed::fields_of(&body, &type_);
            let difference = super::super::typed::compare(&body, &bare(&result), &type_);
            prop_assert!(difference.modified.intersection(&mine).is_empty());
            prop_assert!(difference.removed.is_empty());
            live = Some(result);
        }
        // All but one give up their fields.
        let mut live = live.unwrap();
        let keeper = *latest.keys().next().unwrap();
        for who in latest.keys().filter(|who| **who != keeper) {
            live = apply_patch(deployment(), Some(&live), &config(json!({})), &writer(NAMES[*who]), true).unwrap();
        }
        let spec = latest[&keeper].clone();
        let last = apply_patch(deployment(), Some(&live), &config(spec.clone()), &writer(NAMES[keeper]), true).unwrap();
        prop_assert_eq!(last.get("spec").cloned().unwrap_or_else(|| json!({})), spec);
    }
}
