//! Answers to GET, from a thread of its own.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::libc::EAFNOSUPPORT;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

use super::privileges::Powerless;

/// Who has sent no request by then is not going to.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Reply = Response<Full<Bytes>>;
/// From a path to what is said there.
pub(super) type Answer = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// Where listeners work.
#[derive(Clone)]
pub(super) struct Http(Handle);

impl Http {
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(name: &'static str, powerless: &Powerless) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("runtime of {name}"))?;
        let handle = runtime.handle().clone();
        powerless.run(name, move || runtime.block_on(std::future::pending()))?;
        Ok(Self(handle))
    }

    /// Answers at `address` until it is aborted.
    pub(super) fn listen(&self, address: SocketAddr, answer: Answer) -> io::Result<AbortHandle> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _inside = self.0.enter();
        let listener = TcpListener::from_std(listener)?;
        Ok(self.0.spawn(accept(listener, answer)).abort_handle())
    }

    /// The same at all addresses of this node.
    pub(super) fn listen_everywhere(&self, port: u16, answer: &Answer) -> io::Result<AbortHandle> {
        // Takes IPv4 as well, unless the kernel has no IPv6.
        let any = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into();
        match self.listen(any, Arc::clone(answer)) {
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {
                let any = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into();
                self.listen(any, Arc::clone(answer))
            }
            other => other,
        }
    }
}

async fn accept(listener: TcpListener, answer: Answer) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        let respond = move |request: Request<Incoming>| {
            let response = answer(request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service_fn(respond));
        // Who leaves in the middle did not want to know.
        tokio::spawn(async { drop(connection.await) });
    }
}

pub(super) fn respond(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
