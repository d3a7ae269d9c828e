//! `fieldsV1`: a set as JSON. Each element is a key, with what is in it as
//! value; `.` marks an element that is a member and has members in it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{FieldSet, Node};

impl FieldSet {
    pub(in crate::patch) fn to_json(&self) -> Value {
        let entries = self.0.iter().map(|(element, node)| {
            let mut value = node.below.to_json();
            if let (true, Value::Object(below)) = (node.member, &mut value)
                && !below.is_empty()
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.clone(), value)
        });
        Value::Object(entries.collect())
    }

    /// Reads a set; elements that no set has (`i:`, indices of old versions) are
    /// left out.
    pub(in crate::patch) fn from_json(value: &Value) -> Self {
        let mut set = BTreeMap::new();
        for (element, value) in value.as_object().into_iter().flatten() {
            if !matches!(element.get(..2), Some("f:" | "k:" | "v:")) {
                continue;
            }
            let below = Self::from_json(value);
            let member = below.is_empty() || value.get(".").is_some();
            set.insert(canonical(element), Node { member, below });
        }
        Self(set)
    }
}

/// The keys of an item in one order, without blanks.
fn canonical(element: &str) -> String {
    match element.split_at(2) {
        (kind @ ("k:" | "v:"), json) => match serde_json::from_str::<Value>(json) {
            Ok(value) => format!("{kind}{value}"),
            Err(_) => element.to_owned(),
        },
        _ => element.to_owned(),
    }
}
