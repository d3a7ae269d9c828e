//! Metrics for Prometheus, at kube-proxy's port and at an address of their own.

mod measures;
mod page;
mod process;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use anyhow::Result;
use hyper::StatusCode;
use tracing::warn;

use super::http::{self, Answer, Http, Reply};
use super::privileges::Powerless;
use super::status::Sources;
use super::thread;

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
    powerless: &Powerless,
) -> Result<()> {
    if proxy.is_none() && own.is_empty() {
        return Ok(());
    }
    let http = Http::start("metrics", powerless)?;
    let page = Page::start(Arc::clone(&sources))?;
    let all: Answer = {
        let page = page.clone();
        Arc::new(move |path| as_kube_proxy(&sources, &page, path))
    };
    let metrics: Answer = Arc::new(move |path| match path {
        "/metrics" => page.read(),
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

/// Has the page written by a thread that may read the kernel's tables, which who
/// reads requests may not.
#[derive(Clone)]
struct Page(Sender<Sender<String>>);

impl Page {
    fn start(sources: Arc<Sources>) -> Result<Self> {
        let (ask, asked) = channel::<Sender<String>>();
        thread::start("metrics-page", move || {
            while let Ok(reader) = asked.recv() {
                // Who asked may have gone.
                let _ = reader.send(write::write(&sources));
            }
        })?;
        Ok(Self(ask))
    }

    fn read(&self) -> Reply {
        let (reader, page) = channel();
        let asked = self.0.send(reader).ok();
        match asked.and_then(|()| page.recv().ok()) {
            Some(page) => text(StatusCode::OK, page),
            None => text(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        }
    }
}

/// As kube-proxy does at `metricsBindAddress`.
fn as_kube_proxy(sources: &Sources, page: &Page, path: &str) -> Reply {
    match path {
        "/metrics" => page.read(),
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
