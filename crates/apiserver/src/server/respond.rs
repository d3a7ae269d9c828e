//! Building responses.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::Status;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub(super) type Response = http::Response<Body>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A whole body of one type.
pub(super) fn content(code: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(full(bytes));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn text(text: &'static str) -> Response {
    content(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// The answer to a request that failed.
pub(super) fn failure(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // A Status has only strings and numbers in it.
    content(
        code,
        "application/json",
        serde_json::to_vec(status).unwrap_or_default(),
    )
}

pub(super) fn json(code: StatusCode, value: &serde_json::Value) -> Response {
    content(code, "application/json", value.to_string())
}
