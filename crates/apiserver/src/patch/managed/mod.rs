//! `metadata.managedFields`: who owns which fields of an object.

mod apply;
mod conflict;
mod last_applied;
mod update;

use serde_json::{Map, Value, json};

use super::Writer;
use super::fields::FieldSet;

pub(super) use apply::{Apply, apply};
pub(super) use update::track;

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Apply,
    Update,
}

/// One manager with its fields: an entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manager {
    name: String,
    operation: Operation,
    api_version: String,
    /// Empty for the object itself.
    subresource: String,
    /// RFC 3339; empty if it is not known.
    time: String,
    fields: FieldSet,
}

impl Manager {
    /// The entry of a writer that owns nothing yet.
    fn of(writer: &Writer<'_>, operation: Operation, api_version: &str) -> Self {
        Self {
            name: writer.manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.to_owned(),
            fields: FieldSet::default(),
        }
    }

    /// Whether both are the same manager. One that applies is so in all versions.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn from_json(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            name: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: text("time").to_owned(),
            fields: FieldSet::from_json(entry.get("fieldsV1").unwrap_or(&Value::Null)),
        })
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": match self.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        for (field, value) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                entry[field] = Value::from(value.as_str());
            }
        }
        entry
    }
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Managers(Vec<Manager>);

impl Managers {
    fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        let entries = entries.into_iter().flatten();
        Self(entries.filter_map(Manager::from_json).collect())
    }

    /// Writes them into the object: those that apply first, then by time.
    fn store(mut self, object: &mut Value) {
        self.0.retain(|manager| !manager.fields.is_empty());
        self.0.sort_by(|a, b| {
            let rank = |m: &Manager| (m.operation == Operation::Update, m.time.clone());
            rank(a).cmp(&rank(b))
        });
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        if self.0.is_empty() {
            meta.remove("managedFields");
        } else {
            let entries = self.0.iter().map(Manager::to_json).collect();
            meta.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }

    fn find(&self, manager: &Manager) -> Option<&Manager> {
        self.0.iter().find(|other| other.is(manager))
    }

    /// Puts the manager in the place of its old entry.
    fn set(&mut self, manager: Manager) {
        self.0.retain(|other| !other.is(&manager));
        self.0.push(manager);
    }
}

/// The fields that the server sets: nobody owns them.
fn without_system_fields(mut set: FieldSet) -> FieldSet {
    for field in ["f:apiVersion", "f:kind"] {
        set.cut(&[field]);
    }
    for field in [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
        "f:generateName",
    ] {
        set.cut(&["f:metadata", field]);
    }
    set
}

/// What is compared: the object without its managers.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    if object.is_null() {
        object = Value::Object(Map::new());
    }
    object
}

#[cfg(test)]
mod tests;
