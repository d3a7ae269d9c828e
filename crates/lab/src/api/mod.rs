//! A small client of the lab's API over HTTPS: what the verbs that people type
//! need, with the same kubeconfig that kubectl uses.

mod kubeconfig;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ripstop_apiserver::Status;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use kubeconfig::Access;
pub use kubeconfig::KubeconfigError;

/// Server-side apply; JSON is YAML.
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/>
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
/// Owner of the fields that we apply.
const FIELD_MANAGER: &str = "ripstop";

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error(
        "no answer from the lab's API at {url}: {source}; is the lab running? ripstop lab list"
    )]
    Connect { url: String, source: io::Error },
    #[error("asking the lab's API for {path}: {source}")]
    Http { path: String, source: hyper::Error },
    #[error("the lab's API answered {path} with what is no JSON: {source}")]
    Content {
        path: String,
        source: serde_json::Error,
    },
    /// What the API says is wrong.
    #[error("{0}")]
    Status(Box<Status>),
}

impl ApiError {
    /// The API's own answer, if it was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }
}

/// Whether an applied object is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Created,
    Configured,
}

/// One HTTP/2 connection; clones share it and may ask at the same time.
#[derive(Clone, Debug)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    url: String,
}

impl Api {
    /// # Errors
    /// If the kubeconfig cannot be used or nobody answers.
    pub async fn connect(kubeconfig: &Path) -> Result<Self, ApiError> {
        let access = Access::read(kubeconfig)?;
        let failed = |source| ApiError::Connect {
            url: access.url.clone(),
            source,
        };
        let address: SocketAddr = access.address;
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let connector = TlsConnector::from(Arc::new(access.tls));
        let stream = connector
            .connect(address.ip().into(), stream)
            .await
            .map_err(failed)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        // Its errors are those of the requests.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            url: access.url,
        })
    }

    /// # Errors
    /// [`ApiError::Status`] if there is no such object.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let response = self.ask(Method::GET, path, JSON, Bytes::new()).await?;
        read(path, response).await
    }

    /// The items of a list.
    ///
    /// # Errors
    /// [`ApiError::Status`] if there is no such kind.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        match self.get(path).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Makes an object as it is described, or changes it to be so.
    ///
    /// # Errors
    /// [`ApiError::Status`] with what is wrong about the object.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Applied, ApiError> {
        let query =
            format!("{path}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict");
        let body = object.to_string().into();
        let response = self.ask(Method::PATCH, &query, APPLY, body).await?;
        let applied = match response.status() {
            StatusCode::CREATED => Applied::Created,
            _ => Applied::Configured,
        };
        read(path, response).await?;
        Ok(applied)
    }

    /// # Errors
    /// [`ApiError::Status`] if it is not there.
    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        let response = self.ask(Method::DELETE, path, JSON, Bytes::new()).await?;
        read(path, response).await.map(drop)
    }

    /// A merge patch (RFC 7386).
    ///
    /// # Errors
    /// [`ApiError::Status`] if it is not there or would become invalid.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<(), ApiError> {
        let body = patch.to_string().into();
        let response = self
            .ask(Method::PATCH, path, "application/merge-patch+json", body)
            .await?;
        read(path, response).await.map(drop)
    }

    /// The answer's body as it comes: a log, a watch.
    ///
    /// # Errors
    /// [`ApiError::Status`] if the API refuses.
    pub async fn stream(&self, path: &str) -> Result<Incoming, ApiError> {
        let response = self.ask(Method::GET, path, JSON, Bytes::new()).await?;
        Ok(response.into_body())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            // Names in paths have been checked by who made them; others are
            // refused here as by a server.
            .map_err(|error| {
                let message = format!("{path}: {error}");
                let reason = ripstop_apiserver::Reason::BadRequest;
                ApiError::Status(Box::new(Status::new(reason, message)))
            })?;
        let failed = |source| ApiError::Http {
            path: path.to_owned(),
            source,
        };
        let response = self
            .sender
            .clone()
            .send_request(request)
            .await
            .map_err(failed)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let value = read(path, response).await?;
        let status = serde_json::from_value(value).unwrap_or_else(|_| {
            let message = format!("{path}: the API answered {code}");
            Status::new(ripstop_apiserver::Reason::InternalError, message)
        });
        Err(ApiError::Status(Box::new(status)))
    }
}

/// The whole answer. One that nobody reads is a stream that we reset, and after a
/// thousand of those the connection is closed (`too_many_internal_resets` of h2).
async fn read(path: &str, response: Response<Incoming>) -> Result<Value, ApiError> {
    let body = response.into_body().collect().await;
    let body = body.map_err(|source| ApiError::Http {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|source| ApiError::Content {
        path: path.to_owned(),
        source,
    })
}

impl Api {
    /// Follows a collection: every change after `version`.
    ///
    /// # Errors
    /// [`ApiError::Status`] if there is no such kind.
    pub async fn watch(&self, path: &str, version: &str) -> Result<Events, ApiError> {
        let query = format!("{path}?watch=true&resourceVersion={version}");
        let body = self.stream(&query).await?;
        Ok(Events {
            body,
            buffer: Vec::new(),
            path: path.to_owned(),
        })
    }
}

/// The events of a watch.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    /// What has come of the next line.
    buffer: Vec<u8>,
    path: String,
}

impl Events {
    /// The next event's type (`ADDED`, `MODIFIED`, `DELETED`, ...) and object;
    /// `None` when the API ended the watch.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn next(&mut self) -> Result<Option<(String, Value)>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let mut event: Value =
                    serde_json::from_slice(&line).map_err(|source| ApiError::Content {
                        path: self.path.clone(),
                        source,
                    })?;
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                return Ok(Some((kind, event["object"].take())));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(source)) => {
                    let path = self.path.clone();
                    return Err(ApiError::Http { path, source });
                }
            }
        }
    }
}
