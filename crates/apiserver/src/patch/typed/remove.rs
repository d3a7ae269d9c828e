//! Fields taken out of an object.

use serde_json::{Map, Value};

use super::Shape;
use crate::kinds::schema::Type;
use crate::patch::fields::{FieldSet, field, item};

/// `value` without the fields in `gone`. Objects and lists that become empty go
/// too, unless they are in `kept` themselves; none if nothing is left.
pub(in crate::patch) fn remove(
    value: &Value,
    gone: &FieldSet,
    kept: &FieldSet,
    type_: &Type,
) -> Option<Value> {
    match (Shape::of_value(type_, value), value) {
        (shape @ (Shape::Object(_) | Shape::Map(_)), Value::Object(fields)) => {
            if fields.is_empty() {
                return Some(value.clone());
            }
            let mut left = Map::new();
            for (name, value) in fields {
                let value = one(value, &field(name), gone, kept, shape.field(name));
                left.extend(value.map(|value| (name.clone(), value)));
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Shape::List(list), Value::Array(items)) => {
            let left: Vec<Value> = items
                .iter()
                .filter_map(|value| match item(list, value) {
                    Some(element) => one(value, &element, gone, kept, &list.item),
                    None => Some(value.clone()),
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        _ => Some(value.clone()),
    }
}

/// What is left of one field or item.
fn one(
    value: &Value,
    element: &str,
    gone: &FieldSet,
    kept: &FieldSet,
    type_: &Type,
) -> Option<Value> {
    if gone.has(element) {
        return None;
    }
    let Some(gone) = gone.below(element) else {
        return Some(value.clone());
    };
    let nothing = FieldSet::default();
    let inside = kept.below(element).unwrap_or(&nothing);
    remove(value, gone, inside, type_).or_else(|| match value {
        Value::Object(_) if kept.has(element) => Some(Value::Object(Map::new())),
        _ => None,
    })
}
