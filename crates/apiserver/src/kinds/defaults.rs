//! The defaults that the fields themselves declare.

use serde_json::Value;

use super::schema::{Object, Type};

/// Fills in the declared defaults of an object and of all objects in it.
pub(super) fn fill_object(value: &mut Value, schema: &Object) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    for (name, field) in &schema.fields {
        if let Some(default) = &field.default
            && !fields.contains_key(name)
        {
            fields.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in fields {
        if let Some(field) = schema.field(name) {
            fill(value, &field.type_);
        }
    }
}

fn fill(value: &mut Value, type_: &Type) {
    match (type_, value) {
        (Type::Object(object), value) => fill_object(value, object),
        (Type::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| fill(item, &list.item));
        }
        (Type::Map(map), Value::Object(entries)) => {
            entries
                .values_mut()
                .for_each(|entry| fill(entry, &map.value));
        }
        _ => {}
    }
}
