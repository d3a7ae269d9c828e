//! gRPC, as far as health checks go: every service says that it is serving.
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::drain::Work;
use super::http::Body;

/// A message: not compressed, two bytes long, `HealthCheckResponse{status: 1}`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];

const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

pub(super) fn answer(path: &str, work: Work) -> Response<Body> {
    match path {
        "/grpc.health.v1.Health/Check" => {
            let frames = [
                Frame::data(Bytes::from_static(SERVING)),
                Frame::trailers(status(OK)),
            ];
            response(BodyExt::boxed(StreamBody::new(stream::iter(
                frames.map(Ok::<_, Infallible>),
            ))))
        }
        "/grpc.health.v1.Health/Watch" => response(watch(work)),
        _ => {
            let mut response = response(http_body_util::Empty::new().boxed());
            let headers = response.headers_mut();
            headers.extend(status(UNIMPLEMENTED));
            let reason = HeaderValue::from_static("a stand-in knows health checks only");
            headers.insert("grpc-message", reason);
            response
        }
    }
}

/// The state now, and once more when it changes: at the end.
fn watch(work: Work) -> Body {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(SERVING)))]);
    let last = stream::once(async move {
        let mut work = work;
        work.ending().await;
        Ok(Frame::data(Bytes::from_static(NOT_SERVING)))
    });
    let end = stream::iter([Ok::<_, Infallible>(Frame::trailers(status(OK)))]);
    BodyExt::boxed(StreamBody::new(first.chain(last).chain(end)))
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(code),
    )])
}
