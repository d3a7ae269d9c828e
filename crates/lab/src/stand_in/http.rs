//! HTTP/1.1 and HTTP/2 on one port: who we are, who asked, and what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Identity;
use super::drain::Work;
use super::grpc;

/// How much of a request's body is sent back.
const MAX_BODY: usize = 1024 * 1024;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Serves one connection with `answer`; on ending, the requests under way are
/// finished and the client is told to come no more.
pub(super) async fn serve<S, A>(
    stream: S,
    mut work: Work,
    answer: impl Fn(Request<Incoming>) -> A + Clone,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What is not HTTP after all is answered 400 by hyper.
        _ = &mut connection => return,
        () = work.ending() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Serves one connection with the identity server.
pub(super) async fn identify<S>(
    stream: S,
    identity: Arc<Identity>,
    server: SocketAddr,
    client: SocketAddr,
    work: Work,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ending = work.clone();
    serve(stream, work, move |request| {
        let (identity, ending) = (identity.clone(), ending.clone());
        async move {
            match grpc::is_grpc(request.headers()) {
                true => grpc::answer(request.uri().path(), ending),
                false => describe(request, &identity, server, client).await,
            }
        }
    })
    .await;
}

#[derive(Serialize)]
struct Asked {
    request: Description,
}

#[derive(Serialize)]
struct Description {
    method: String,
    path: String,
    version: String,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn describe(
    request: Request<Incoming>,
    identity: &Identity,
    server: SocketAddr,
    client: SocketAddr,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    // HTTP/2 has the host in the request line.
    if let Some(authority) = parts.uri.authority() {
        headers
            .entry("host".to_owned())
            .or_insert_with(|| authority.to_string());
    }
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return text(
            413,
            format!("a body of more than {MAX_BODY} bytes is not sent back\n"),
        );
    };
    let request = Description {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string),
        version: format!("{:?}", parts.version),
        headers,
        body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    };
    let answer = identity.answer(server, client, Asked { request });
    respond(200, "application/json", answer)
}

pub(super) fn text(status: u16, text: impl Into<Vec<u8>>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text.into())
}

pub(super) fn respond(status: u16, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(
        header::SERVER,
        header::HeaderValue::from_static("ripstop-stand-in"),
    );
    response
}
