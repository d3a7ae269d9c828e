//! Paths to fields, and how messages write them.

use std::fmt;

use serde_json::{Map, Value};

use crate::kinds::schema::{List, ListKind, Type};

/// The element of a field of an object, or a key of a map.
pub(in crate::patch) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The element of a list's item; none for lists whose items are not told apart,
/// and for items without any of the keys.
pub(in crate::patch) fn item(list: &List, item: &Value) -> Option<String> {
    match &list.kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                let default = match &list.item {
                    Type::Object(object) => object.field(key).and_then(|f| f.default.as_ref()),
                    _ => None,
                };
                let value = item.get(key).filter(|value| !value.is_null()).or(default);
                found.extend(value.map(|value| (key.clone(), value.clone())));
            }
            // Defaults alone name no item.
            let given = keys.iter().any(|key| item.get(key).is_some());
            given.then(|| format!("k:{}", Value::Object(found)))
        }
    }
}

/// A path, as conflicts name it: `.spec.containers[name="web"].image`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::patch) struct Path(pub(super) Vec<String>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for element in &self.0 {
            match element.split_at(2.min(element.len())) {
                ("k:", keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    write!(f, "[{}]", keys.join(","))?;
                }
                ("v:", value) => write!(f, "[={value}]")?,
                (_, name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}
