//! gRPC probes: the health service says SERVING.
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ripstop_netlink::netns::Netns;

use super::USER_AGENT;
use super::connect::{connect, describe};

/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub(super) async fn probe(
    node: &Netns,
    to: SocketAddr,
    service: &str,
    limit: Duration,
) -> Result<(), String> {
    match tokio::time::timeout(limit, check(node, to, service)).await {
        Ok(Ok("SERVING")) => Ok(()),
        Ok(Ok(status)) => Err(format!("service unhealthy (responded with {status:?})")),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(format!(
            "timeout: failed to connect service {to:?} within {limit:?}"
        )),
    }
}

async fn check(node: &Netns, to: SocketAddr, service: &str) -> Result<&'static str, String> {
    let failed = |error: hyper::Error| format!("error: health rpc failed: {error}");
    let stream = connect(node, to)
        .await
        .map_err(|error| describe(to, &error))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(failed)?;
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let headers = response.headers().clone();
        let body = response.into_body().collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok::<_, hyper::Error>((headers, trailers, body.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    let (headers, trailers, body) = tokio::select! {
        biased;
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
    .map_err(failed)?;
    // A failed call has no message and its status in the headers.
    let status = |map: &HeaderMap| map.get("grpc-status").map(|s| s.as_bytes().to_vec());
    match status(&trailers).or_else(|| status(&headers)).as_deref() {
        Some(b"0") => serving_status(&body),
        Some(b"12") => Err(
            "error: this server does not implement the grpc health protocol \
                            (grpc.health.v1.Health)"
                .to_owned(),
        ),
        Some(other) => Err(format!(
            "error: health rpc failed: rpc error: code = {}",
            String::from_utf8_lossy(other)
        )),
        None => Err("error: health rpc failed: the answer is not gRPC".to_owned()),
    }
}

/// `HealthCheckRequest{service}` in a frame: not compressed, length, field 1.
fn message(service: &str) -> Bytes {
    let mut payload = BytesMut::new();
    if !service.is_empty() {
        payload.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            // The low seven bits, and the mark that more follow.
            payload.put_u8((length as u8) | 0x80);
            length >>= 7;
        }
        payload.put_u8(length as u8);
        payload.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + payload.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put(payload);
    frame.freeze()
}

/// Field 1 of a `HealthCheckResponse`; absent is 0, which is UNKNOWN.
fn serving_status(frame: &[u8]) -> Result<&'static str, String> {
    let broken = || "error: health rpc failed: malformed answer".to_owned();
    match frame.get(5..).ok_or_else(broken)? {
        [] => Ok(STATUSES[0]),
        [0x08, status, ..] => STATUSES
            .get(usize::from(*status))
            .copied()
            .ok_or_else(broken),
        _ => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn answers() {
        for (frame, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Ok("SERVING")),
            (&[0, 0, 0, 0, 2, 8, 2], Ok("NOT_SERVING")),
            (&[0, 0, 0, 0, 0], Ok("UNKNOWN")),
            (&[0, 0, 0, 0, 2, 8, 9], Err(())),
            (&[0, 0, 0, 0, 2, 0x12, 1], Err(())),
            (&[0], Err(())),
        ] {
            assert_eq!(serving_status(frame).map_err(drop), expected, "{frame:?}");
        }
    }
}
