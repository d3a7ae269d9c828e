//! The four kinds of PATCH. Each is a function from the stored object and the
//! request's body to the object that is to be written.

mod fields;
mod managed;
mod strategic;
mod typed;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::Status;
use crate::kinds::schema::Type;
use crate::kinds::{self, KindSpec};
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

/// Who writes, for `managedFields`.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `?fieldManager=`, or the beginning of the User-Agent.
    pub manager: &'a str,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// Server-side apply. `current` is none when the apply creates the object. The
/// result has its `managedFields`: [`track`] is for all other writes.
///
/// # Errors
/// 400 for what cannot be applied; without `force`, 409 with a cause for each
/// field that another manager owns with another value.
pub fn apply(
    kind: &KindSpec,
    current: Option<&Value>,
    body: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let mut config = Value::Object(as_object(kind, body)?.clone());
    let meta = &body["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let what = format!("{name}; {}, Kind={}", kind.api_version(), kind.kind);
    if meta["managedFields"]
        .as_array()
        .is_some_and(|m| !m.is_empty())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    kinds::check_types(kind, &mut config).map_err(|error| {
        Status::bad_request(format!(
            "failed to create typed patch object ({what}): {error}"
        ))
    })?;
    keep_part(kind, &mut config, writer.subresource);
    let apply = managed::Apply {
        config: &config,
        type_: &Type::Object(Arc::clone(&kind.schema)),
        api_version: &kind.api_version(),
        writer: *writer,
        force,
    };
    let live = current.unwrap_or(&Value::Null);
    managed::apply(live, apply, |object| kinds::normalize(kind, object))
        .map_err(|error| error.into_status(&what))
}

/// Of what is applied, only what this part of the object may change counts.
fn keep_part(kind: &KindSpec, config: &mut Value, subresource: &str) {
    if let Some(fields) = config.as_object_mut() {
        match subresource {
            "status" => {
                fields.retain(|name, _| {
                    matches!(&**name, "apiVersion" | "kind" | "metadata" | "status")
                });
            }
            _ if kind.status => drop(fields.remove("status")),
            _ => {}
        }
    }
}

/// Sets the managers of `after`, which an ordinary write made of `before`: the
/// writer owns what it changed.
pub fn track(kind: &KindSpec, before: Option<&Value>, after: &mut Value, writer: &Writer<'_>) {
    let type_ = Type::Object(Arc::clone(&kind.schema));
    let before = before.unwrap_or(&Value::Null);
    managed::track(before, after, &type_, &kind.api_version(), writer);
}
