//! HTTP probes and hooks: a GET that is answered with 200 to 399.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use ripstop_netlink::netns::Netns;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connect::{connect, describe};
use super::{USER_AGENT, tls};

pub(super) async fn probe(
    node: &Netns,
    to: SocketAddr,
    get_action: &HTTPGetAction,
    tls: bool,
    limit: Duration,
) -> Result<(), String> {
    let status = get(node, to, get_action, tls, limit).await?;
    match status.is_success() || status.is_redirection() {
        true => Ok(()),
        false => Err(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        )),
    }
}

/// Sends the request; the answer's body is not read.
pub(in super::super) async fn get(
    node: &Netns,
    to: SocketAddr,
    action: &HTTPGetAction,
    tls: bool,
    limit: Duration,
) -> Result<StatusCode, String> {
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{to}/{}", path.trim_start_matches('/'));
    let attempt = async {
        let request = request(action, path, to)?;
        let stream = connect(node, to)
            .await
            .map_err(|error| describe(to, &error))?;
        match tls {
            true => send(tls::handshake(stream, to.ip()).await?, request).await,
            false => send(stream, request).await,
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(problem)) => Err(format!("Get {url:?}: {problem}")),
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting \
             headers)"
        )),
    }
}

fn request(
    action: &HTTPGetAction,
    path: &str,
    to: SocketAddr,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(format!("/{}", path.trim_start_matches('/')))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    for given in action.http_headers.iter().flatten() {
        let name = HeaderName::try_from(&given.name).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(&given.value).map_err(|error| error.to_string())?;
        headers.append(name, value);
    }
    let host = HeaderValue::try_from(to.to_string()).map_err(|error| error.to_string())?;
    for (name, value) in [
        (header::HOST, host),
        (header::USER_AGENT, HeaderValue::from_static(USER_AGENT)),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ] {
        headers.entry(name).or_insert(value);
    }
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = sender.send_request(request);
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        response = &mut exchange => response,
        // The connection ends only after the answer, or with an error that the
        // exchange gives too.
        _ = &mut connection => exchange.await,
    }
    .map(|response| response.status())
    .map_err(|error| error.to_string())
}
