//! The cluster's API, as kubectl would use it; objects are JSON.

use std::path::Path;

use anyhow::{Context, Result};
use http::{Method, Request, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// # Errors
    /// If the kubeconfig cannot be used.
    pub fn connect(kubeconfig: &Path) -> Result<Self> {
        // Somebody else of this process may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// # Errors
    /// What the API says.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, None)
    }

    /// Makes an object in a collection.
    ///
    /// # Errors
    /// What the API says is wrong about it.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.request(Method::POST, path, Some(("application/json", object)))
    }

    /// A merge patch (RFC 7386).
    ///
    /// # Errors
    /// What the API says is wrong about it.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.request(
            Method::PATCH,
            path,
            Some(("application/merge-patch+json", patch)),
        )
    }

    /// # Errors
    /// What the API says.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.request(Method::DELETE, path, None)
    }

    fn request(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some((kind, body)) => request
                .header(header::CONTENT_TYPE, kind)
                .body(body.to_string().into_bytes()),
            None => request.body(Vec::new()),
        };
        let answer = self.client.request(request?);
        self.runtime.block_on(answer).context(what)
    }
}
