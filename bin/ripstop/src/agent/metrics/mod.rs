//! Metrics for Prometheus, at kube-proxy's port and at an address of their own.

mod measures;
mod page;
mod process;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use hyper::StatusCode;
use tracing::warn;

use super::http::{self, Answer, Http, Reply};
use super::status::Sources;

pub(crate) use measures::Measures;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves what tools expect of kube-proxy (`/proxyMode`, `/healthz`, `/metrics`)
/// at the addresses `proxy`, and `/metrics` at `own`. An address that cannot be
/// had is no error: kube-proxy may still run.
///
/// # Errors
/// If there can be no thread.
pub(super) fn serve(
    sources: Arc<Sources>,
    proxy: Option<SocketAddr>,
    own: &[SocketAddr],
) -> Result<()> {
    if proxy.is_none() && own.is_empty() {
        return Ok(());
    }
    let http = Http::start("metrics", true)?;
    let all: Answer = {
        let sources = Arc::clone(&sources);
        Arc::new(move |path| as_kube_proxy(&sources, path))
    };
    let metrics: Answer = Arc::new(move |path| match path {
        "/metrics" => text(StatusCode::OK, write::write(&sources)),
        _ => text(StatusCode::NOT_FOUND, "only /metrics\n".to_owned()),
    });
    let own = own.iter().map(|address| (*address, &metrics));
    for (address, answer) in proxy.map(|address| (address, &all)).into_iter().chain(own) {
        if let Err(error) = http.listen(address, Arc::clone(answer)) {
            warn!(%address, %error, "nobody answers for metrics");
        }
    }
    Ok(())
}

/// As kube-proxy does at `metricsBindAddress`.
fn as_kube_proxy(sources: &Sources, path: &str) -> Reply {
    match path {
        "/metrics" => text(StatusCode::OK, write::write(sources)),
        "/proxyMode" => text(StatusCode::OK, sources.mode().to_owned()),
        "/healthz" => text(StatusCode::OK, "ok".to_owned()),
        _ => text(
            StatusCode::NOT_FOUND,
            "/metrics, /proxyMode, /healthz\n".to_owned(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Reply {
    http::respond(status, TEXT, body)
}
