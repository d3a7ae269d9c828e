//! Operations of server-side apply on objects of a known type: which fields an
//! object has, how two differ, one laid over another, fields taken out.
//!
//! The rules are those of `sigs.k8s.io/structured-merge-diff`.

mod compare;
mod fields_of;
mod overlay;
mod remove;

use serde_json::Value;

use crate::kinds::schema::{List, ListKind, Object, Type};

pub(super) use compare::compare;
pub(super) use fields_of::{ItemError, check_items, fields_of};
pub(super) use overlay::overlay;
pub(super) use remove::remove;

/// How a value is looked into.
enum Shape<'a> {
    /// Owned as a whole.
    Whole,
    /// Each declared field by itself.
    Object(&'a Object),
    /// Each entry by itself; the type of the entries.
    Map(&'a Type),
    /// Each item by itself.
    List(&'a List),
}

/// Values without a type: objects are looked into, lists are not.
static ANY: Type = Type::Any;

impl<'a> Shape<'a> {
    fn of(type_: &'a Type) -> Self {
        match type_ {
            Type::Object(object) if !object.atomic => Self::Object(object),
            Type::Map(map) if !map.atomic => Self::Map(&map.value),
            Type::List(list) if list.kind != ListKind::Atomic => Self::List(list),
            Type::Any => Self::Map(&ANY),
            _ => Self::Whole,
        }
    }

    /// The same, if the value is of that shape.
    fn of_value(type_: &'a Type, value: &Value) -> Self {
        let shape = Self::of(type_);
        match (&shape, value) {
            (Self::Object(_) | Self::Map(_), Value::Object(_))
            | (Self::List(_), Value::Array(_)) => shape,
            _ => Self::Whole,
        }
    }

    /// The type of a field or entry.
    fn field(&self, name: &str) -> &'a Type {
        match self {
            Self::Object(object) => object.field(name).map_or(&ANY, |field| &field.type_),
            Self::Map(value) => value,
            _ => &ANY,
        }
    }
}

#[cfg(test)]
mod tests;
