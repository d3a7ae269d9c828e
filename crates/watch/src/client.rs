//! How to reach the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::{HeaderValue, USER_AGENT};
use http::uri::InvalidUri;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// A server that does not take a connection for this long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A watch on which nothing happens sends nothing, so nobody would notice that
/// the server is gone before the watch's time is over: after this long without
/// a word TCP asks...
const KEEPALIVE: Duration = Duration::from_secs(10);
/// ...again and again...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// ...and after this long without an answer the connection ends.
const SILENCE: Duration = Duration::from_secs(20);

/// Why there is no client; the server itself has not been asked yet.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        path: PathBuf,
        source: kube::config::KubeconfigError,
    },
    #[error("no kubeconfig was given and this is no pod with a service account: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    #[error("API server {url:?}: {problem} (right would be: https://192.0.2.1:6443)")]
    Url { url: String, problem: String },
    #[error("{0:?} is no name for a client")]
    Name(String),
    #[error("client of {server}: {source}")]
    Client { server: String, source: kube::Error },
}

/// A client from a kubeconfig, or without one from the pod's service account; of
/// the server at `url` instead, if there is one. The server's log calls it `name`.
///
/// # Errors
/// If the configuration cannot be read or names certificates that cannot.
pub async fn connect(
    name: &str,
    kubeconfig: Option<&Path>,
    url: Option<&str>,
) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClientError::Kubeconfig {
                path: path.to_owned(),
                source,
            })?,
        None => Config::incluster().map_err(ClientError::InCluster)?,
    };
    if let Some(url) = url {
        config.cluster_url = server(url)?;
    }
    let agent = format!("{name}/{}", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::try_from(agent).map_err(|_| ClientError::Name(name.to_owned()))?;
    config.headers.push((USER_AGENT, agent));
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let server = config.cluster_url.to_string();
    build(config).map_err(|source| ClientError::Client { server, source })
}

fn server(url: &str) -> Result<Uri, ClientError> {
    let error = |problem: String| ClientError::Url {
        url: url.to_owned(),
        problem,
    };
    let server: Uri = url.parse().map_err(|e: InvalidUri| error(e.to_string()))?;
    match server.scheme_str() {
        Some("https") => Ok(server),
        _ => Err(error("it is no https URL".to_owned())),
    }
}

/// As kube's own builder does it, with a connection that keeps itself alive.
fn build(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // Says which part of kube this is built without.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_tcp_user_timeout(Some(SILENCE));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let client: legacy::Client<_, Body> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

async fn from_file(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers() {
        assert_eq!(
            server("https://[fd00::1]:6443")
                .unwrap()
                .authority()
                .unwrap(),
            "[fd00::1]:6443"
        );
        for url in ["192.0.2.1:6443", "http://192.0.2.1", "https://", ""] {
            let error = server(url).unwrap_err().to_string();
            assert!(error.contains(&format!("API server {url:?}: ")), "{error}");
        }
    }
}
