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

use crate::client::Client;
use crate::pods::PodAccess;
use crate::registry::{Registry, Resource};
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
    /// Of the path; empty for cluster-scoped kinds.
    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }
}
