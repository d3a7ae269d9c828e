//! The fields that an object has.

use serde_json::Value;

use super::Shape;
use crate::kinds::schema::{ListKind, Type};
use crate::patch::fields::{FieldSet, field, item};

/// The fields of `value`: scalars, what is owned as a whole, items of lists, and
/// empty objects.
pub(in crate::patch) fn fields_of(value: &Value, type_: &Type) -> FieldSet {
    let mut set = FieldSet::default();
    collect(value, type_, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, type_: &Type, path: &mut Vec<String>, set: &mut FieldSet) {
    match (Shape::of_value(type_, value), value) {
        (shape @ (Shape::Object(_) | Shape::Map(_)), Value::Object(fields)) => {
            for (name, value) in fields {
                path.push(field(name));
                let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                if empty || value.is_null() || matches!(shape, Shape::Map(_)) {
                    set.insert(path);
                }
                collect(value, shape.field(name), path, set);
                path.pop();
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for value in items {
                if let Some(element) = item(list, value) {
                    path.push(element);
                    set.insert(path);
                    // The item of a set has nothing in it.
                    if list.kind != ListKind::Set {
                        collect(value, &list.item, path, set);
                    }
                    path.pop();
                }
            }
        }
        _ => set.insert(path),
    }
}

/// A list that cannot be applied: its items are not told apart (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::patch) enum ItemError {
    #[error(
        "{path}: element {index}: associative list with keys has an element that omits key field {keys:?}"
    )]
    NoKey {
        path: String,
        index: usize,
        keys: String,
    },
    #[error("{path}: duplicate entries for key {element}")]
    Duplicate { path: String, element: String },
}

/// Checks that the items of all lists of an applied object are told apart.
///
/// # Errors
/// Names the first list in which they are not.
pub(in crate::patch) fn check_items(value: &Value, type_: &Type) -> Result<(), ItemError> {
    check(value, type_, "")
}

fn check(value: &Value, type_: &Type, path: &str) -> Result<(), ItemError> {
    match (Shape::of_value(type_, value), value) {
        (shape @ (Shape::Object(_) | Shape::Map(_)), Value::Object(fields)) => {
            for (name, value) in fields {
                check(value, shape.field(name), &format!("{path}.{name}"))?;
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            let mut seen = Vec::new();
            for (index, value) in items.iter().enumerate() {
                let Some(element) = item(list, value) else {
                    let ListKind::Map(keys) = &list.kind else {
                        continue;
                    };
                    return Err(ItemError::NoKey {
                        path: path.to_owned(),
                        index,
                        keys: keys.join(", "),
                    });
                };
                if seen.contains(&element) {
                    return Err(ItemError::Duplicate {
                        path: path.to_owned(),
                        element: element[2..].to_owned(),
                    });
                }
                seen.push(element);
                check(value, &list.item, path)?;
            }
        }
        _ => {}
    }
    Ok(())
}
