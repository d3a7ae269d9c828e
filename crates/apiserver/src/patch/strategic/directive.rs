//! The `$` keys of a patch.

use serde_json::{Map, Value};

use super::{PatchError, shape};

/// `$patch: replace | delete | merge` of the object it stands in.
pub(super) const PATCH: &str = "$patch";
/// `$retainKeys: [...]`: the fields that survive.
const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/field: [...]`: values to take out of a list.
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Clears the fields that `$retainKeys` does not list.
pub(super) fn retain_keys(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keep = items(directive, path)?;
    let kept = |key: &str| keep.iter().any(|k| k == key);
    let given = patch
        .iter()
        .filter(|(k, v)| !k.starts_with('$') && !v.is_null());
    for (key, _) in given {
        if !kept(key) {
            return Err(PatchError::RetainKeys {
                path: path.to_owned(),
                key: key.clone(),
            });
        }
    }
    object.retain(|key, _| kept(key));
    Ok(())
}

/// Takes values out of lists of scalars.
pub(super) fn delete_primitives(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<(), PatchError> {
    for (key, gone) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_LIST) {
            let gone = items(gone, path)?;
            if let Some(Value::Array(current)) = object.get_mut(field) {
                current.retain(|value| !gone.contains(value));
            }
        }
    }
    Ok(())
}

pub(super) fn items<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, PatchError> {
    value.as_array().ok_or_else(|| PatchError::Shape {
        path: path.to_owned(),
        found: shape(value),
        wanted: "a list",
    })
}

/// What of a patch becomes part of the object where the object has nothing:
/// all but directives, nulls, and what is marked as deleted (then none).
pub(in crate::patch) fn strip(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(object) if object.get(PATCH).is_some_and(|d| d == "delete") => None,
        Value::Object(object) => Some(Value::Object(strip_object(object))),
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(strip).collect())),
        scalar => Some(scalar.clone()),
    }
}

pub(super) fn strip_object(object: &Map<String, Value>) -> Map<String, Value> {
    object
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .filter_map(|(key, value)| Some((key.clone(), strip(value)?)))
        .collect()
}
