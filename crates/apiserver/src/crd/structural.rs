//! From the OpenAPI schema of a definition to the description of types that
//! decoding, defaulting and server-side apply read.

use std::sync::Arc;

use serde_json::Value;

use crate::kinds::schema::{self, Field, List, ListKind, ListPatch, Map, Object, Type, Zero};

/// The type of a whole custom resource. Without a schema anything goes.
pub(super) fn root(schema: &Value) -> Object {
    let mut object = object(schema);
    object.preserve_unknown |= !schema.is_object();
    add_identity(&mut object);
    object
}

fn add_identity(object: &mut Object) {
    object
        .fields
        .insert("apiVersion".to_owned(), field(Type::String, None));
    object
        .fields
        .insert("kind".to_owned(), field(Type::String, None));
    let metadata = Type::Object(schema::object("", "ObjectMeta"));
    object
        .fields
        .insert("metadata".to_owned(), field(metadata, None));
}

fn field(type_: Type, default: Option<Value>) -> Field {
    Field {
        type_,
        zero: Zero::Value,
        default,
        retain_keys: false,
    }
}

fn object(schema: &Value) -> Object {
    let properties = schema["properties"].as_object();
    let fields = properties.into_iter().flatten().map(|(name, property)| {
        (
            name.clone(),
            field(type_of(property), property.get("default").cloned()),
        )
    });
    Object {
        fields: fields.collect(),
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        preserve_unknown: schema["x-kubernetes-preserve-unknown-fields"] == true,
        ..Object::default()
    }
}

fn type_of(schema: &Value) -> Type {
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::IntOrString;
    }
    match schema["type"].as_str() {
        Some("string") => Type::String,
        Some("boolean") => Type::Bool,
        Some("integer") if schema["format"] == "int32" => Type::Int32,
        Some("integer") => Type::Int64,
        Some("number") => Type::Number,
        Some("array") => Type::List(Arc::new(List {
            item: type_of(&schema["items"]),
            kind: list_kind(schema),
            patch: ListPatch::Replace,
        })),
        Some("object") => object_or_map(schema),
        _ => Type::Any,
    }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(super::texts(&schema["x-kubernetes-list-map-keys"])),
        _ => ListKind::Atomic,
    }
}

fn object_or_map(schema: &Value) -> Type {
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    if schema["properties"].is_object() || embedded {
        let mut object = object(schema);
        if embedded {
            add_identity(&mut object);
        }
        return Type::Object(Arc::new(object));
    }
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    match &schema["additionalProperties"] {
        Value::Object(_) => {
            let value = type_of(&schema["additionalProperties"]);
            Type::Map(Arc::new(Map { value, atomic }))
        }
        Value::Bool(true) => Type::Map(Arc::new(Map {
            value: Type::Any,
            atomic,
        })),
        // Nothing is declared: nothing is kept, unless everything is.
        _ if schema["x-kubernetes-preserve-unknown-fields"] == true => Type::Any,
        _ => Type::Object(Arc::new(object(schema))),
    }
}
