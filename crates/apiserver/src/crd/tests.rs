use super::*;
use crate::Cause;

fn definition() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["color"], "properties": {
                        "color": {"type": "string", "enum": ["red", "blue"]},
                        "replicas": {"type": "integer", "minimum": 0, "default": 1},
                        "host": {"type": "string", "pattern": "^[a-z.]+$", "maxLength": 10},
                        "ports": {
                            "type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["port"],
                            "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
                        },
                        "either": {"type": "object", "oneOf": [
                            {"required": ["a"]}, {"required": ["b"]}],
                            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
                        "tags": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
                    }},
                }}},
            }],
        },
    })
}

#[test]
fn a_definition_becomes_a_kind() {
    let mut definition = definition();
    set_defaults(&mut definition);
    assert_eq!(check(&definition, None), []);
    establish(&mut definition);
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    let served = served(&definition);
    let spec = &served[0].spec;
    assert_eq!(
        (&*spec.kind, &*spec.singular, &*spec.plural),
        ("Widget", "widget", "widgets")
    );
    assert!(spec.status && spec.namespaced && spec.is_custom());
    assert_eq!(spec.scale.as_ref().unwrap().spec_replicas, "spec.replicas");
    assert_eq!(spec.columns[0].json_path, ".spec.color");
}

#[test]
fn definitions_that_cannot_be_served() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|it| it["metadata"]["name"] = json!("x"), "metadata.name"),
        (|it| it["spec"]["scope"] = json!("World"), "spec.scope"),
        (|it| it["spec"]["versions"] = json!([]), "spec.versions"),
        (
            |it| it["spec"]["versions"][0]["storage"] = json!(false),
            "spec.versions",
        ),
        (|it| it["spec"]["group"] = json!("apps"), "spec.group"),
        (
            |it| {
                it["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] =
                    json!("map")
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type",
        ),
    ];
    for (change, field) in cases {
        let mut definition = definition();
        change(&mut definition);
        let causes = check(&definition, None);
        assert!(
            causes.iter().any(|cause| cause.field == *field),
            "{field}: {causes:?}"
        );
    }
}

#[test]
fn objects_are_checked_by_their_schema() {
    let mut definition = definition();
    establish(&mut definition);
    let schema = served(&definition).remove(0).schema.unwrap();
    let cases = [
        (
            json!({"color": "red", "ports": [{"port": 1}, {"port": 2}], "either": {"a": "x"}}),
            vec![],
        ),
        (json!({}), vec!["spec.color"]),
        (json!({"color": "green"}), vec!["spec.color"]),
        (
            json!({"color": "red", "replicas": -1}),
            vec!["spec.replicas"],
        ),
        (json!({"color": "red", "host": "UPPER"}), vec!["spec.host"]),
        (
            json!({"color": "red", "host": "far.too.long"}),
            vec!["spec.host"],
        ),
        (
            json!({"color": "red", "ports": [{"port": 1}, {"port": 1}]}),
            vec!["spec.ports[1]"],
        ),
        (
            json!({"color": "red", "ports": [{}, {"port": 1}, {"port": 2}]}),
            vec!["spec.ports"],
        ),
        (
            json!({"color": "red", "either": {"a": "x", "b": "y"}}),
            vec!["spec.either"],
        ),
        (
            json!({"color": "red", "tags": {"k": ""}}),
            vec!["spec.tags.k"],
        ),
    ];
    for (spec, expected) in cases {
        let causes = schema.validate(&json!({"spec": spec}));
        let fields: Vec<_> = causes
            .iter()
            .map(|cause: &Cause| cause.field.as_str())
            .collect();
        assert_eq!(fields, expected, "{spec}: {causes:?}");
    }
}
