//! Strategic merge patch: a merge patch that knows which lists are merged, and
//! by which key.
//!
//! The behaviour is that of `k8s.io/apimachinery/pkg/util/strategicpatch` on
//! the server: what `kubectl apply`, `edit` and `patch` send for built-in kinds.
//! One thing is better: ports that share a number and differ by protocol are
//! told apart, see [`list`].

mod directive;
mod list;
mod order;

use serde_json::{Map, Value};

use crate::kinds::schema::{Field, ListPatch, Object, Type};

pub(super) use directive::strip;

/// A patch that does not make sense for the object (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    #[error("{path}: the patch has {found} where the object has {wanted}")]
    Shape {
        path: String,
        found: &'static str,
        wanted: &'static str,
    },
    #[error("{path}: unknown patch directive {directive}")]
    Directive { path: String, directive: Value },
    #[error("{path}: map: {item} does not contain declared merge key: {key}")]
    NoMergeKey {
        path: String,
        item: Value,
        key: String,
    },
    #[error(
        "{path}: the keys of $retainKeys must include all keys of the patch, and {key:?} is missing"
    )]
    RetainKeys { path: String, key: String },
    #[error("{path}: an item of $setElementOrder has no merge key {key}: {item}")]
    Order {
        path: String,
        item: Value,
        key: String,
    },
}

/// Merges `patch` into `object`, an object of the type `schema`.
///
/// # Errors
/// If a directive is unknown or incomplete.
pub(super) fn merge(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Object,
) -> Result<(), PatchError> {
    merge_object(object, patch, Some(schema), "")
}

/// `schema` is none for objects with arbitrary keys and for JSON that has no type.
fn merge_object(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Object>,
    path: &str,
) -> Result<(), PatchError> {
    match patch.get(directive::PATCH).map(|d| (d, d.as_str())) {
        None | Some((_, Some("merge"))) => {}
        Some((_, Some("replace"))) => {
            *object = directive::strip_object(patch);
            return Ok(());
        }
        Some((_, Some("delete"))) => {
            object.clear();
            return Ok(());
        }
        Some((other, _)) => {
            return Err(PatchError::Directive {
                path: path.to_owned(),
                directive: other.clone(),
            });
        }
    }
    directive::retain_keys(object, patch, path)?;
    directive::delete_primitives(object, patch, path)?;
    for (name, value) in patch {
        if !name.starts_with('$') {
            let field = schema.and_then(|schema| schema.field(name));
            merge_field(object, patch, name, value, field, path)?;
        }
    }
    order::reorder_untouched(object, patch, schema, path)
}

fn merge_field(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    name: &str,
    value: &Value,
    field: Option<&Field>,
    path: &str,
) -> Result<(), PatchError> {
    let path = format!("{path}.{name}");
    let type_ = field.map(|field| &field.type_);
    match (object.get_mut(name), value) {
        (_, Value::Null) => {
            object.remove(name);
        }
        (Some(Value::Object(current)), Value::Object(value)) => {
            let schema = match type_ {
                Some(Type::Object(schema)) => Some(&**schema),
                _ => None,
            };
            merge_object(current, value, schema, &path)?;
            if value.get(directive::PATCH).is_some_and(|d| d == "delete") {
                object.remove(name);
            }
        }
        (current, Value::Array(items)) => {
            let merged = match type_ {
                Some(Type::List(list)) if list.patch != ListPatch::Replace => {
                    let empty = Vec::new();
                    let current = match current {
                        Some(Value::Array(current)) => &*current,
                        _ => &empty,
                    };
                    let order = order::wanted(patch, name, &path)?;
                    list::merge(current, items, order, list, &path)?
                }
                _ => strip(value).and_then(into_items).unwrap_or_default(),
            };
            object.insert(name.to_owned(), Value::Array(merged));
        }
        _ => match strip(value) {
            Some(value) => {
                object.insert(name.to_owned(), value);
            }
            None => {
                object.remove(name);
            }
        },
    }
    Ok(())
}

fn into_items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// What a value is, for messages.
fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
