//! Bodies in the protobuf encoding, which `kubectl create deployment` and its
//! like send whatever the server says it takes. They become the JSON that they
//! stand for; answers are always JSON.
//!
//! Read for the types that `kubectl create` makes. A field outside of those is
//! refused, never dropped.

mod numbers;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kinds::KindSpec;
use crate::kinds::schema::{Object, Type};
use crate::{Reason, Status};
use wire::{Datum, Fields, Malformed};

pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Begins every body; a `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; the deepest that `kubectl create` makes is 8.
const DEPTH: usize = 32;

/// The object in a body.
///
/// # Errors
/// 400 for what is no such message, 415 for fields that are read as JSON only.
pub(super) fn object(spec: &KindSpec, body: &[u8]) -> Result<Value, Status> {
    let unknown = body.strip_prefix(MAGIC).ok_or(Malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields::of(unknown) {
        match field? {
            (1, Datum::Bytes(meta)) => {
                for field in Fields::of(meta) {
                    match field? {
                        (1, Datum::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Datum::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Datum::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = message(&spec.schema, raw, DEPTH)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

impl From<Malformed> for Status {
    fn from(error: Malformed) -> Self {
        Self::bad_request(error.to_string())
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

fn not_read(what: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!("{what} is not read in the protobuf encoding: send the object as application/json"),
    )
}

fn message(type_: &Object, bytes: &[u8], depth: usize) -> Result<Value, Status> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let numbers = numbers::of(&type_.name).ok_or_else(|| not_read(&type_.name))?;
    let mut fields = Map::new();
    for field in Fields::of(bytes) {
        let (number, mut datum) = field?;
        let name = numbers
            .iter()
            .find(|(it, _)| *it == number)
            .map(|(_, name)| *name);
        let unread = || not_read(&format!("field {number} of {}", type_.name));
        let mut name = name.ok_or_else(unread)?;
        if let Some(inner) = name.strip_prefix('*') {
            match Fields::of(bytes_of(datum)?).next().transpose()? {
                Some((1, inside)) => datum = inside,
                Some(_) => return Err(unread()),
                None => continue,
            }
            name = inner;
        }
        let declared = type_.field(name).ok_or_else(unread)?;
        add(&mut fields, name, &declared.type_, datum, depth)?;
    }
    Ok(Value::Object(fields))
}

/// Lists and maps come as one field for each entry.
fn add(
    fields: &mut Map<String, Value>,
    name: &str,
    type_: &Type,
    datum: Datum<'_>,
    depth: usize,
) -> Result<(), Status> {
    match type_ {
        Type::List(list) => {
            let item = value(&list.item, datum, depth)?;
            let items = fields.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(items) = items {
                items.push(item);
            }
        }
        Type::Map(map) => {
            // A missing key or value is the empty one.
            let (mut key, mut entry) = (String::new(), None);
            for field in Fields::of(bytes_of(datum)?) {
                match field? {
                    (1, Datum::Bytes(bytes)) => key = text(bytes)?,
                    (2, datum) => entry = Some(value(&map.value, datum, depth)?),
                    _ => return Err(Malformed.into()),
                }
            }
            let entry = match entry {
                Some(entry) => entry,
                None => value(&map.value, Datum::Bytes(&[]), depth)?,
            };
            let entries = fields.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(entries) = entries {
                entries.insert(key, entry);
            }
        }
        _ => {
            fields.insert(name.to_owned(), value(type_, datum, depth)?);
        }
    }
    Ok(())
}

fn value(type_: &Type, datum: Datum<'_>, depth: usize) -> Result<Value, Status> {
    Ok(match (type_, datum) {
        (Type::String, Datum::Bytes(bytes)) => json!(text(bytes)?),
        (Type::Bytes, Datum::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Type::Bool, Datum::Varint(number)) => json!(number != 0),
        (Type::Int32 | Type::Int64, Datum::Varint(number)) => json!(number.cast_signed()),
        (Type::Object(object), Datum::Bytes(bytes)) => message(object, bytes, depth)?,
        (Type::Quantity, Datum::Bytes(bytes)) => quantity(bytes)?,
        (Type::IntOrString, Datum::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Time, Datum::Bytes(bytes)) => time(bytes)?,
        (Type::Any | Type::Number | Type::MicroTime, _) => return Err(not_read("a field")),
        _ => return Err(Malformed.into()),
    })
}

fn bytes_of(datum: Datum<'_>) -> Result<&[u8], Malformed> {
    match datum {
        Datum::Bytes(bytes) => Ok(bytes),
        Datum::Varint(_) => Err(Malformed),
    }
}

/// `{ string = 1 }`
fn quantity(bytes: &[u8]) -> Result<Value, Malformed> {
    match Fields::of(bytes).next().transpose()? {
        Some((1, Datum::Bytes(amount))) => Ok(json!(text(amount)?)),
        None => Ok(json!("0")),
        Some(_) => Err(Malformed),
    }
}

/// `{ type = 1; intVal = 2; strVal = 3 }`, type 1 for a string.
fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for field in Fields::of(bytes) {
        match field? {
            (1, Datum::Varint(kind)) => is_text = kind == 1,
            (2, Datum::Varint(value)) => number = value.cast_signed(),
            (3, Datum::Bytes(bytes)) => string = text(bytes)?,
            _ => return Err(Malformed),
        }
    }
    Ok(if is_text {
        json!(string)
    } else {
        json!(number)
    })
}

/// `{ seconds = 1; nanos = 2 }`; nothing for no time.
fn time(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut seconds = None;
    for field in Fields::of(bytes) {
        if let (1, Datum::Varint(value)) = field? {
            seconds = Some(value.cast_signed());
        }
    }
    let Some(seconds) = seconds else {
        return Ok(Value::Null);
    };
    let time = Timestamp::from_second(seconds).map_err(|_| Malformed)?;
    Ok(json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

#[cfg(test)]
mod tests;
