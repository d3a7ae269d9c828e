//! The Kubernetes API over HTTPS: HTTP/1.1 and HTTP/2, for kubectl and kube-rs.
//!
//! A request goes `listen` -> `route` -> a method of [`Call`] -> the registry.

mod body;
mod discovery;
mod exec;
mod listen;
mod negotiate;
mod openapi;
mod path;
mod pods;
mod protobuf;
mod query;
mod read;
mod respond;
mod reviews;
mod route;
mod scale;
mod watch;
mod write;

use std::sync::Arc;

use http::HeaderMap;

use crate::Status;
use crate::client::Client;
use crate::pods::PodAccess;
use crate::registry::{Registry, Resource, WriteOptions};
use negotiate::Form;
use path::Target;
use query::Query;

pub use listen::serve;

/// What every request can reach.
struct Api {
    client: Client,
    token: String,
    pods: Arc<dyn PodAccess>,
}

impl Api {
    fn registry(&self) -> &Registry {
        self.client.registry()
    }
}

/// One request about objects of one kind.
struct Call<'a> {
    api: &'a Api,
    resource: Arc<Resource>,
    target: &'a Target,
    query: &'a Query,
    headers: &'a HeaderMap,
    form: Form,
}

impl Call<'_> {
    /// What the query and the headers say about a write.
    fn write_options(&self) -> Result<WriteOptions, Status> {
        let agent = self.headers.get(http::header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        self.query.write(agent.unwrap_or("unknown"))
    }

    /// Of the path; empty for cluster-scoped kinds.
    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }
}
