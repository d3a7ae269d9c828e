//! Reading what a client sent.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::{Reason, Status};

/// As much as a Kubernetes API server takes, in bytes.
const LIMIT: usize = 3 << 20;

pub(super) async fn read(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {LIMIT}"),
        )),
        Err(error) => Err(Status::bad_request(format!(
            "cannot read the body: {error}"
        ))),
    }
}

/// The media type without parameters; `application/json` if none is given.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    if kind.is_empty() {
        "application/json"
    } else {
        kind
    }
}

/// An object as JSON or YAML.
pub(super) fn object(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Status> {
    match media_type(headers) {
        "application/json" => json(bytes),
        "application/yaml" => yaml(bytes),
        other => Err(unsupported(other, "application/json, application/yaml")),
    }
}

pub(super) fn json(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("the body is not valid JSON: {error}")))
}

pub(super) fn yaml(bytes: &[u8]) -> Result<Value, Status> {
    // Clients write JSON under this name too, and that is faster to read.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    serde_saphyr::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("the body is not valid YAML: {error}")))
}

pub(super) fn unsupported(found: &str, accepted: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format ({found}) - accepted media types \
             include: {accepted}"
        ),
    )
}
