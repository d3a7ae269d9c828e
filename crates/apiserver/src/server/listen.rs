//! Connections: accept, TLS, HTTP.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Api, route};
use crate::client::Client;
use crate::pki::Tls;
use crate::pods::PodAccess;

/// A client that does not finish its TLS handshake in this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 streams of one connection: an agent or a kubectl has a watch per kind.
const STREAMS: u32 = 1024;

/// Serves until it is dropped; open connections end with it.
///
/// # Errors
/// When a listener cannot be used.
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
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&api)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, api: Arc<Api>) {
    // Small answers and watch events go out at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    // The verifier has checked it; there is one user, the administrator.
    let trusted = stream.get_ref().1.peer_certificates().is_some();
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(route::handle(&api, trusted, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().max_concurrent_streams(STREAMS);
    let served = server
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "connection ended");
    }
}
