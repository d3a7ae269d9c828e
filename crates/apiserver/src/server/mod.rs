//! The Kubernetes API over HTTPS: HTTP/1.1 and HTTP/2, for kubectl and kube-rs.

mod respond;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::Status;
use crate::client::Client;
use crate::pki::Tls;
use crate::pods::PodAccess;
use respond::Response;

/// A client that does not finish its TLS handshake in this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every request can reach.
struct Api {
    client: Client,
    token: String,
    pods: Arc<dyn PodAccess>,
}

/// Serves until it is dropped; open connections end with it.
pub async fn serve(
    client: Client,
    listeners: Vec<TcpListener>,
    tls: Tls,
    pods: Arc<dyn PodAccess>,
) -> io::Result<()> {
    let api = Arc::new(Api {
        client,
        token: tls.token,
        pods,
    });
    let acceptor = TlsAcceptor::from(tls.config);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(accept(listener, acceptor.clone(), Arc::clone(&api)));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, api: Arc<Api>) {
    // Dropped with this future, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, api) = (acceptor.clone(), Arc::clone(&api));
        connections.spawn(async move {
            // Small answers and watch events go out at once.
            let _ = stream.set_nodelay(true);
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
            let Ok(Ok(stream)) = handshake.await else {
                return;
            };
            let trusted = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request| {
                let api = Arc::clone(&api);
                async move { Ok::<_, Infallible>(handle(&api, trusted, request).await) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn handle(api: &Api, trusted: bool, request: http::Request<Incoming>) -> Response {
    let _ = (&api.client, &api.pods);
    if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz") {
        return respond::text("ok");
    }
    let token = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !trusted && token != Some(&api.token) {
        return respond::failure(&Status::unauthorized());
    }
    respond::failure(&Status::no_such_resource())
}
