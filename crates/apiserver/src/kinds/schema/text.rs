//! The notation of the `*.fields` files.
//!
//! ```text
//! # A comment.
//! TypeName [kind] [atomic]
//!     field    type    [attribute ...]
//! ```
//!
//! - `kind`: an API object; has `apiVersion` and `kind` too.
//! - Types: `string bool int32 int64 number quantity int_or_string time
//!   micro_time bytes any`, `TypeName`, `[T]` a list, `{T}` a map from strings.
//! - `T` alone: the zero value means "not given"; `T?`: the zero value is a
//!   value; `T!`: the field is always written.
//! - `map=k1,k2`, `set`: list kinds of server-side apply (else atomic);
//!   `atomic`: a map owned as a whole.
//! - `merge`, `merge=key`: patch strategy and merge key of strategic merge patch;
//!   `retain`: its `retainKeys` strategy.
//! - `default=JSON`: the value of a missing field.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Field, List, ListKind, ListPatch, Map, Object, Type, Zero};

/// Reads the types of `text` into `types`; a type is declared before its use.
///
/// # Panics
/// On a mistake in the text. The texts are part of the program, and a test
/// reads them all.
pub(super) fn read(text: &str, types: &mut HashMap<String, Arc<Object>>) {
    for block in text.split("\n\n") {
        let mut lines = block
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let Some(header) = lines.next() else { continue };
        let mut words = header.split_whitespace();
        let mut object = Object {
            name: words.next().expect("a line that is not blank").to_owned(),
            ..Object::default()
        };
        for word in words {
            match word {
                "atomic" => object.atomic = true,
                "kind" => object.fields.extend(["apiVersion", "kind"].map(|name| {
                    let field = Field {
                        type_: Type::String,
                        zero: Zero::Absent,
                        default: None,
                        retain_keys: false,
                    };
                    (name.to_owned(), field)
                })),
                other => panic!("{header}: unknown word {other}"),
            }
        }
        for line in lines {
            let (name, field) = field(line, types);
            object.fields.insert(name, field);
        }
        types.insert(object.name.clone(), Arc::new(object));
    }
}

fn field(line: &str, types: &HashMap<String, Arc<Object>>) -> (String, Field) {
    let mut words = line.split_whitespace();
    let (Some(name), Some(type_name)) = (words.next(), words.next()) else {
        panic!("{line:?}: a field has a name and a type");
    };
    let attributes: BTreeMap<&str, &str> = words
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .collect();
    let (type_name, zero) = match type_name.strip_suffix(['?', '!']) {
        Some(stem) if type_name.ends_with('?') => (stem, Zero::Value),
        Some(stem) => (stem, Zero::Written),
        None => (type_name, Zero::Absent),
    };
    let field = Field {
        type_: type_of(type_name, &attributes, types),
        zero,
        default: attributes
            .get("default")
            .map(|json| serde_json::from_str(json).expect("a default is JSON")),
        retain_keys: attributes.contains_key("retain"),
    };
    (name.to_owned(), field)
}

fn type_of(
    name: &str,
    attributes: &BTreeMap<&str, &str>,
    types: &HashMap<String, Arc<Object>>,
) -> Type {
    if let Some(item) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        let keys = attributes.get("map");
        let kind = match keys {
            Some(keys) => ListKind::Map(keys.split(',').map(str::to_owned).collect()),
            None if attributes.contains_key("set") => ListKind::Set,
            None => ListKind::Atomic,
        };
        let patch = match attributes.get("merge") {
            Some(&"") => ListPatch::Merge(None),
            Some(key) => ListPatch::Merge(Some((*key).to_owned())),
            None => ListPatch::Replace,
        };
        return Type::List(Arc::new(List {
            item: type_of(item, &BTreeMap::new(), types),
            kind,
            patch,
        }));
    }
    if let Some(value) = name.strip_prefix('{').and_then(|n| n.strip_suffix('}')) {
        return Type::Map(Arc::new(Map {
            value: type_of(value, &BTreeMap::new(), types),
            atomic: attributes.contains_key("atomic"),
        }));
    }
    match name {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "number" => Type::Number,
        "quantity" => Type::Quantity,
        "int_or_string" => Type::IntOrString,
        "time" => Type::Time,
        "micro_time" => Type::MicroTime,
        "bytes" => Type::Bytes,
        "any" => Type::Any,
        _ => match types.get(name) {
            Some(object) => Type::Object(object.clone()),
            None => panic!("type {name} is used before it is declared"),
        },
    }
}
