//! How two versions of an object differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Shape;
use crate::kinds::schema::{List, ListKind, Type};
use crate::patch::fields::{FieldSet, field, item};

/// The fields that are only in the second version, only in the first one, or in
/// both with different values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::patch) struct Comparison {
    pub(in crate::patch) added: FieldSet,
    pub(in crate::patch) removed: FieldSet,
    pub(in crate::patch) modified: FieldSet,
}

impl Comparison {
    /// Added or modified.
    pub(in crate::patch) fn changed(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

pub(in crate::patch) fn compare(before: &Value, after: &Value, type_: &Type) -> Comparison {
    let mut comparison = Comparison::default();
    let mut path = Vec::new();
    pair(Some(before), Some(after), type_, &mut path, &mut comparison);
    comparison
}

/// At least one of the two is there.
fn pair(
    before: Option<&Value>,
    after: Option<&Value>,
    type_: &Type,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    if before == after {
        return;
    }
    match (Shape::of(type_), before, after) {
        (
            shape @ (Shape::Object(_) | Shape::Map(_)),
            None | Some(Value::Object(_)),
            None | Some(Value::Object(_)),
        ) => {
            let (before, after) = (as_object(before), as_object(after));
            if before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
                return leaf(before.is_some(), after.is_some(), path, out);
            }
            // A map that came or went is a change by itself.
            if matches!(shape, Shape::Map(_)) && before.is_some() != after.is_some() {
                leaf(before.is_some(), after.is_some(), path, out);
            }
            for name in names(before, after) {
                path.push(field(name));
                let before = before.and_then(|object| object.get(name));
                let after = after.and_then(|object| object.get(name));
                pair(before, after, shape.field(name), path, out);
                path.pop();
            }
        }
        (Shape::List(list), None | Some(Value::Array(_)), None | Some(Value::Array(_))) => {
            items(as_list(before), as_list(after), list, path, out);
        }
        _ => leaf(before.is_some(), after.is_some(), path, out),
    }
}

fn leaf(before: bool, after: bool, path: &[String], out: &mut Comparison) {
    let set = match (before, after) {
        (false, _) => &mut out.added,
        (_, false) => &mut out.removed,
        _ => &mut out.modified,
    };
    set.insert(path);
}

fn as_object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn as_list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn names<'a>(
    before: Option<&'a Map<String, Value>>,
    after: Option<&'a Map<String, Value>>,
) -> Vec<&'a String> {
    let fields = |object: Option<&'a Map<String, Value>>| object.into_iter().flat_map(Map::keys);
    let mut names: Vec<&String> = fields(before).chain(fields(after)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Items are known by their keys; the order is not looked at.
fn items(
    before: &[Value],
    after: &[Value],
    list: &List,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    let mut both: BTreeMap<String, [Option<&Value>; 2]> = BTreeMap::new();
    for (side, items) in [before, after].into_iter().enumerate() {
        for value in items {
            if let Some(element) = item(list, value) {
                // Of items with one key, the first one counts.
                both.entry(element).or_default()[side].get_or_insert(value);
            }
        }
    }
    for (element, [before, after]) in both {
        path.push(element);
        if before.is_some() != after.is_some() {
            leaf(before.is_some(), after.is_some(), path, out);
        }
        if list.kind != ListKind::Set {
            pair(before, after, &list.item, path, out);
        }
        path.pop();
    }
}
