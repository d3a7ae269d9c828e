//! netexec's `/dial`: asks another pod, and reports what it answered.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpStream, UdpSocket, lookup_host};

use super::query;

/// agnhost waits this long for an answer over UDP; for HTTP as long as the
/// client that asked does, which a server cannot see. Both are bounded here.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// The JSON report, or what is wrong with the query.
pub(super) async fn dial(asked: Option<&str>) -> Result<Vec<u8>, String> {
    let required =
        |name| query::get(asked, name).ok_or_else(|| format!("{name} parameter is required"));
    let (host, port, request) = (required("host")?, required("port")?, required("request")?);
    let protocol = query::get(asked, "protocol").unwrap_or_else(|| "http".to_owned());
    let tries: u32 = match query::get(asked, "tries") {
        None => 1,
        Some(text) => text
            .parse()
            .map_err(|_| format!("tries parameter {text:?} is invalid"))?,
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let address = format!("{host}:{port}");
    let mut report = Report::default();
    for _ in 0..tries {
        let attempt = async {
            match protocol.as_str() {
                "http" => over_http(&address, &request).await,
                "udp" => over_udp(&address, &request).await,
                other => Err(format!("protocol parameter {other:?} is not http or udp").into()),
            }
        };
        match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(Ok(text)) => report.responses.push(text),
            Ok(Err(error)) => report.errors.push(error.to_string()),
            Err(_) => report
                .errors
                .push(format!("no answer from {address} in {PATIENCE:?}")),
        }
    }
    serde_json::to_vec(&report).map_err(|error| error.to_string())
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn over_http(address: &str, request: &str) -> Result<String, Error> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("/{}", request.trim_start_matches('/')))
        .header("host", address)
        .body(Empty::<Bytes>::new())?;
    let body = sender
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes();
    Ok(String::from_utf8_lossy(&body).trim().to_owned())
}

async fn over_udp(address: &str, request: &str) -> Result<String, Error> {
    let target: SocketAddr = lookup_host(address).await?.next().ok_or("no address")?;
    let socket = UdpSocket::bind(match target {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    })
    .await?;
    socket.connect(target).await?;
    socket.send(request.as_bytes()).await?;
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}
