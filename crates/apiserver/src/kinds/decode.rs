//! Reading JSON as a kind: every field known, every value of its type.

use serde_json::Value;

use super::FieldValidation;
use super::get::text;
use super::path::Path;
use super::schema::{Field, Object, Type, Zero};
use super::spec::KindSpec;
use super::values::{self, Precision};

/// Checks that `object` is an object of `kind`, and leaves it without unknown
/// fields, without nulls, and without zero values where they say nothing.
///
/// # Errors
/// What is wrong, for a 400: it is no object of that kind and version, a value
/// has the wrong type, or (with `Strict`) a field is unknown.
pub(super) fn decode(
    kind: &KindSpec,
    object: &mut Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    identify(kind, object)?;
    let mut walk = Walk::new(Zeros::Drop);
    walk.lenient = kind.is_custom();
    walk.object(object, &kind.schema, &Path::empty())
        .map_err(|error| unhandled(kind, &error))?;
    match validation {
        FieldValidation::Strict if !walk.unknown.is_empty() => {
            let list = walk.unknown.join(", ");
            return Err(unhandled(kind, &format!("strict decoding error: {list}")));
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.append(&mut walk.unknown),
    }
    Ok(())
}

/// As [`decode`], of what is applied: unknown fields are errors, zero values stay.
pub(super) fn check(kind: &KindSpec, object: &mut Value) -> Result<(), String> {
    identify(kind, object)?;
    let mut walk = Walk::new(Zeros::Keep);
    walk.object(object, &kind.schema, &Path::empty())?;
    match walk.unknown.first() {
        Some(unknown) => Err(format!("{unknown}: field not declared in schema")),
        None => Ok(()),
    }
}

/// As [`decode`], but wrong values stay as they are.
pub(super) fn normalize(kind: &KindSpec, object: &mut Value) {
    let mut walk = Walk::new(Zeros::Drop);
    // The error is found again when the object is prepared.
    let _ = walk.object(object, &kind.schema, &Path::empty());
}

/// The object says that it is of this kind and version.
fn identify(kind: &KindSpec, object: &Value) -> Result<(), String> {
    if !object.is_object() {
        return Err(format!(
            "the body must be an object (a {}), not {object}",
            kind.kind
        ));
    }
    for (field, name) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
        if text(object, field).is_empty() {
            return Err(format!("Object '{name}' is missing in '{object}'"));
        }
    }
    let (said_kind, said_version) = (text(object, "kind"), text(object, "apiVersion"));
    let version = kind.api_version();
    if said_version != version {
        return Err(format!(
            "the API version in the data ({said_version}) does not match the expected API version ({version})"
        ));
    }
    if said_kind != kind.kind {
        return Err(format!(
            "{said_kind} in version {0:?} cannot be handled as a {1}: the kind in the data must be {1}",
            kind.version, kind.kind
        ));
    }
    Ok(())
}

fn unhandled(kind: &KindSpec, error: &str) -> String {
    format!(
        "{0} in version {1:?} cannot be handled as a {0}: {error}",
        kind.kind, kind.version
    )
}

/// What to do with zero values that say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Drop,
    Keep,
}

struct Walk {
    /// Values of the wrong type stay, but for metadata: the schema of a custom
    /// resource finds them, with a cause for each.
    lenient: bool,
    zeros: Zeros,
    /// `unknown field "spec.foo"`, one each.
    unknown: Vec<String>,
}

impl Walk {
    fn new(zeros: Zeros) -> Self {
        Self {
            lenient: false,
            zeros,
            unknown: Vec::new(),
        }
    }

    fn object(&mut self, value: &mut Value, schema: &Object, path: &Path) -> Result<(), String> {
        let Some(fields) = value.as_object_mut() else {
            let name = format!("v1.{}", schema.name);
            return Err(mismatch(value, &schema.name, path, &name));
        };
        let mut wrong = Ok(());
        fields.retain(|name, value| {
            let Some(field) = schema.field(name) else {
                if !schema.preserve_unknown {
                    self.unknown
                        .push(format!("unknown field \"{}\"", path.child(name)));
                }
                return schema.preserve_unknown;
            };
            if wrong.is_ok() {
                wrong = self.value(value, &field.type_, &schema.name, &path.child(name));
                // The types of built-in kinds have names, those of custom ones not.
                if self.lenient && schema.name.is_empty() && name != "metadata" {
                    wrong = Ok(());
                }
            }
            !value.is_null() && (self.zeros == Zeros::Keep || !says_nothing(field, value))
        });
        wrong
    }

    fn value(
        &mut self,
        value: &mut Value,
        type_: &Type,
        owner: &str,
        path: &Path,
    ) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let right = match type_ {
            Type::Any => true,
            Type::String => value.is_string(),
            Type::Bool => value.is_boolean(),
            Type::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Type::Int64 => value.is_i64(),
            Type::Number => value.is_number(),
            Type::IntOrString => {
                value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            Type::Quantity => return values::quantity(value).map_err(|e| format!("{path}: {e}")),
            Type::Time => {
                return values::time(value, Precision::Seconds).map_err(|e| format!("{path}: {e}"));
            }
            Type::MicroTime => {
                return values::time(value, Precision::Microseconds)
                    .map_err(|e| format!("{path}: {e}"));
            }
            Type::Bytes => return values::bytes(value).map_err(|e| format!("{path}: {e}")),
            Type::Object(object) => {
                if value.is_object() {
                    return self.object(value, object, path);
                }
                false
            }
            Type::List(list) => {
                if let Some(items) = value.as_array_mut() {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.value(item, &list.item, owner, &path.index(index))?;
                        // A null item reads as the zero value, as in Go.
                        if item.is_null() {
                            *item = zero(&list.item);
                        }
                    }
                    return Ok(());
                }
                false
            }
            Type::Map(map) => {
                if let Some(entries) = value.as_object_mut() {
                    for (key, entry) in entries.iter_mut() {
                        self.value(entry, &map.value, owner, &path.child(key))?;
                        if entry.is_null() {
                            *entry = zero(&map.value);
                        }
                    }
                    return Ok(());
                }
                false
            }
        };
        if right {
            Ok(())
        } else {
            Err(mismatch(value, owner, path, &type_name(type_)))
        }
    }
}

fn says_nothing(field: &Field, value: &Value) -> bool {
    field.zero == Zero::Absent
        && match value {
            Value::String(text) => text.is_empty(),
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty() && matches!(field.type_, Type::Map(_)),
            Value::Null => true,
        }
}

fn zero(type_: &Type) -> Value {
    match type_ {
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => Value::from(""),
        Type::Bool => Value::from(false),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => Value::from(0),
        Type::Quantity => Value::from("0"),
        Type::Any => Value::Null,
        Type::List(_) => Value::Array(Vec::new()),
        Type::Map(_) | Type::Object(_) => Value::Object(serde_json::Map::new()),
    }
}

/// The API's message for a value of the wrong type, with the list indices that it leaves out.
fn mismatch(value: &Value, owner: &str, path: &Path, wanted: &str) -> String {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")
}

fn type_name(type_: &Type) -> String {
    match type_ {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Bytes => "[]byte".to_owned(),
        Type::Any => "object".to_owned(),
        Type::List(list) => format!("[]{}", type_name(&list.item)),
        Type::Map(map) => format!("map[string]{}", type_name(&map.value)),
        Type::Object(object) => format!("v1.{}", object.name),
    }
}
