//! Reading JSON objects whose fields decoding has already checked: a missing
//! field reads as its zero value.

use serde_json::{Map, Value};

/// A string field; empty when missing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A whole number; `None` when missing.
pub(crate) fn int(object: &Value, field: &str) -> Option<i64> {
    object.get(field).and_then(Value::as_i64)
}

/// A boolean; false when missing.
pub(crate) fn flag(object: &Value, field: &str) -> bool {
    object
        .get(field)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// The items of a list; none when missing.
pub(crate) fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The strings of a list.
pub(crate) fn texts<'a>(object: &'a Value, field: &str) -> Vec<&'a str> {
    list(object, field)
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

/// The entries of a map; none when missing.
pub(crate) fn entries<'a>(
    object: &'a Value,
    field: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// A nested value; null when any step is missing.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .try_fold(object, |value, step| value.get(step))
        .unwrap_or(&Value::Null)
}

/// The items of a list field, to change them.
pub(crate) fn list_mut<'a>(
    object: &'a mut Value,
    field: &str,
) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// The object in a field, made if it is missing.
pub(crate) fn object_mut<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let entry = &mut value[field];
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry
}

/// Sets a field that is missing. Does nothing to a value that is no object.
pub(crate) fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut()
        && object.get(field).is_none_or(Value::is_null)
    {
        object.insert(field.to_owned(), value.into());
    }
}

/// Sets a field, or removes it for `None`.
pub(crate) fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Some(value) => object.insert(field.to_owned(), value),
            None => object.remove(field),
        };
    }
}
