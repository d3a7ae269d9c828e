//! What objects look like: one description that decoding, strategic merge
//! patch, server-side apply and the published OpenAPI all read.
//!
//! The built-in kinds are described by the `*.fields` files beside this one,
//! in the notation of [`text`]; custom resources by the schema in their
//! CustomResourceDefinition (`crd::structural`).

mod builtin;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use builtin::object;

/// Type of a value.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Number,
    /// A resource amount: `100m`, `1.5Gi`, or a bare number.
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Base64.
    Bytes,
    /// Any JSON; not looked into.
    Any,
    List(Arc<List>),
    Map(Arc<Map>),
    Object(Arc<Object>),
}

/// How the items of a list are told apart by server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Owned and replaced as a whole.
    Atomic,
    /// Items are scalars; each is owned by itself.
    Set,
    /// Items are objects, known by the values of these fields.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct List {
    pub item: Type,
    pub kind: ListKind,
    /// How a strategic merge patch treats the list.
    pub patch: ListPatch,
}

/// What a strategic merge patch does with a list (`patchStrategy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListPatch {
    Replace,
    /// Items are merged; objects by the value of this field (`patchMergeKey`).
    Merge(Option<String>),
}

/// An object with arbitrary keys.
#[derive(Clone, Debug)]
pub struct Map {
    pub value: Type,
    /// Owned as a whole by server-side apply.
    pub atomic: bool,
}

/// An object with declared fields.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Name of the type in the API, e.g. `PodSpec`.
    pub name: String,
    pub fields: BTreeMap<String, Field>,
    /// Owned as a whole by server-side apply.
    pub atomic: bool,
    /// Fields that are not declared are kept, not refused (custom resources only).
    pub preserve_unknown: bool,
}

/// Whether a field's zero value (`0`, `""`, `false`) says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// The zero value means "not given" and is dropped.
    Absent,
    /// Optional; the zero value is a value.
    Value,
    /// Always written; a missing one reads as the zero value.
    Written,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub type_: Type,
    pub zero: Zero,
    /// Filled in when the field is missing from an object that is there.
    pub default: Option<Value>,
    /// Strategic merge patch: keys that `$retainKeys` does not list are cleared.
    pub retain_keys: bool,
}

impl Object {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
}

impl Type {
    /// The object type of this value, or of the items of this list.
    pub fn as_object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(list) => list.item.as_object(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
