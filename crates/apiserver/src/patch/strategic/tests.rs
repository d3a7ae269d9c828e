use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kinds::schema;

fn patched(kind: (&str, &str), object: Value, patch: Value) -> Result<Value, PatchError> {
    let schema = schema::object(kind.0, kind.1);
    let mut object = object.as_object().unwrap().clone();
    merge(&mut object, patch.as_object().unwrap(), &schema)?;
    Ok(Value::Object(object))
}

const POD: (&str, &str) = ("", "PodSpec");
const SERVICE: (&str, &str) = ("", "ServiceSpec");

#[test]
fn table() {
    // (what, type, object, patch, result)
    let table = [
        (
            "containers merge by name, scalars and unknown ones stay",
            POD,
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
            json!({"containers": [{"name": "b", "image": "z"}]}),
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]}),
        ),
        (
            "the order that the patch asks for",
            POD,
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "sidecar"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}, {"name": "sidecar"}]}),
        ),
        (
            "items are deleted by key",
            POD,
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "a list is replaced",
            POD,
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        (
            "an object is replaced",
            POD,
            json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
            json!({"securityContext": {"$patch": "replace", "runAsUser": 3}}),
            json!({"securityContext": {"runAsUser": 3}}),
        ),
        (
            "an object is deleted",
            POD,
            json!({"securityContext": {"runAsUser": 1}, "hostname": "h"}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"hostname": "h"}),
        ),
        (
            "null deletes",
            POD,
            json!({"hostname": "h", "subdomain": "s"}),
            json!({"hostname": null, "nodeName": null}),
            json!({"subdomain": "s"}),
        ),
        (
            "lists without a strategy are replaced",
            POD,
            json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
        ),
        (
            "a volume changes its source",
            POD,
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}),
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
        ),
        (
            "directives do not become content",
            POD,
            json!({}),
            json!({"containers": [{"name": "a", "$setElementOrder/env": [{"name": "E"}], "env": [{"name": "E", "value": null}, {"name": "F", "$patch": "delete"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "E"}]}]}),
        ),
        (
            "a port is changed",
            SERVICE,
            json!({"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}),
            json!({"$setElementOrder/ports": [{"port": 80}], "ports": [{"port": 80, "protocol": "UDP"}]}),
            json!({"ports": [{"port": 80, "protocol": "UDP", "nodePort": 30000}]}),
        ),
        (
            "a second protocol on a port",
            SERVICE,
            json!({"ports": [{"port": 53, "protocol": "TCP", "name": "t"}]}),
            json!({"$setElementOrder/ports": [{"port": 53}, {"port": 53}], "ports": [{"port": 53, "protocol": "UDP", "name": "u"}]}),
            json!({"ports": [{"port": 53, "protocol": "TCP", "name": "t"}, {"port": 53, "protocol": "UDP", "name": "u"}]}),
        ),
        (
            "one of two protocols changes",
            SERVICE,
            json!({"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!({"$setElementOrder/ports": [{"port": 53}, {"port": 53}], "ports": [{"port": 53, "protocol": "UDP", "targetPort": 5353}]}),
            json!({"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "targetPort": 5353}]}),
        ),
        (
            "the default protocol is the same port",
            SERVICE,
            json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}),
            json!({"ports": [{"port": 53, "targetPort": 1}]}),
            json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "targetPort": 1}]}),
        ),
        (
            "one of two protocols goes",
            SERVICE,
            json!({"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!({"$setElementOrder/ports": [{"port": 53}], "ports": [{"port": 53, "$patch": "delete"}]}),
            json!({"ports": [{"port": 53, "protocol": "TCP"}]}),
        ),
        (
            "finalizers are a set",
            ("", "ObjectMeta"),
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}),
            json!({"finalizers": ["c", "b"]}),
        ),
        (
            "labels are a map",
            ("", "ObjectMeta"),
            json!({"labels": {"a": "1", "b": "2"}}),
            json!({"labels": {"a": null, "c": "3"}}),
            json!({"labels": {"b": "2", "c": "3"}}),
        ),
        (
            "conditions merge by type",
            ("apps", "DeploymentStatus"),
            json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}),
            json!({"conditions": [{"type": "B", "status": "False"}]}),
            json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]}),
        ),
    ];
    for (what, kind, object, patch, result) in table {
        assert_eq!(patched(kind, object, patch), Ok(result), "{what}");
    }
}

#[test]
fn patches_that_make_no_sense() {
    let object = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v"}]});
    for (patch, message) in [
        (
            json!({"$patch": "explode"}),
            r#": unknown patch directive "explode""#,
        ),
        (
            json!({"containers": [{"image": "x"}]}),
            r#".containers: map: {"image":"x"} does not contain declared merge key: name"#,
        ),
        (
            json!({"containers": ["x"]}),
            ".containers: the patch has a string where the object has an object",
        ),
        (
            json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}),
            r#".volumes: the keys of $retainKeys must include all keys of the patch, and "emptyDir" is missing"#,
        ),
        (
            json!({"$setElementOrder/containers": [{"image": "x"}]}),
            r#".containers: an item of $setElementOrder has no merge key name: {"image":"x"}"#,
        ),
    ] {
        let error = patched(POD, object.clone(), patch).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// A container's environment and labels, as an order of names and a value each.
type Env = Vec<(String, String)>;

fn env() -> impl Strategy<Value = Env> {
    prop::collection::btree_map("[A-F]", "[0-2]", 0..6)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

fn container(env: &Env) -> Value {
    let env: Vec<Value> = env
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"containers": [{"name": "main", "env": env}]})
}

/// What kubectl sends when the last applied environment was `old`, the file now
/// says `new`, and the server has `live`.
fn three_way(old: &Env, new: &Env, live: &Env) -> Value {
    let live: BTreeMap<_, _> = live.iter().cloned().collect();
    let mut env: Vec<Value> = new
        .iter()
        .filter(|(name, value)| live.get(name) != Some(value))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    for (name, _) in old {
        if !new.iter().any(|(n, _)| n == name) {
            env.push(json!({"name": name, "$patch": "delete"}));
        }
    }
    let order: Vec<Value> = new.iter().map(|(name, _)| json!({"name": name})).collect();
    let mut main = json!({"name": "main", "$setElementOrder/env": order});
    if !env.is_empty() {
        main["env"] = env.into();
    }
    json!({"$setElementOrder/containers": [{"name": "main"}], "containers": [main]})
}

fn names(object: &Value) -> Vec<String> {
    let env = object["containers"][0]["env"].as_array();
    env.into_iter()
        .flatten()
        .map(|e| e["name"].as_str().unwrap().to_owned())
        .collect()
}

proptest! {
    /// What the file says is there, in its order; what it no longer says is
    /// gone; what others added stays.
    #[test]
    fn a_three_way_patch_does_what_apply_promises(old in env(), new in env(), live in env()) {
        let patch = three_way(&old, &new, &live);
        let result = patched(POD, container(&live), patch.clone()).unwrap();

        let mut expected: BTreeMap<String, String> = live.into_iter().collect();
        for (name, _) in &old {
            expected.remove(name);
        }
        expected.extend(new.iter().cloned());
        let found: BTreeMap<String, String> = result["containers"][0]["env"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (e["name"].as_str().unwrap().to_owned(), e["value"].as_str().unwrap().to_owned()))
            .collect();
        prop_assert_eq!(found, expected);

        let mine: Vec<String> = new.iter().map(|(name, _)| name.clone()).collect();
        let mut order = names(&result);
        order.retain(|name| mine.contains(name));
        prop_assert_eq!(order, mine);

        // Sending it again changes nothing.
        prop_assert_eq!(patched(POD, result.clone(), patch).unwrap(), result);
    }

    /// Patching an object with itself is no change; a patch onto nothing is the patch.
    #[test]
    fn identity(env in env()) {
        let object = container(&env);
        prop_assert_eq!(patched(POD, object.clone(), object.clone()).unwrap(), object.clone());
        prop_assert_eq!(patched(POD, json!({}), object.clone()).unwrap(), object);
    }
}
