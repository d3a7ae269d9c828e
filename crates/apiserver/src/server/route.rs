//! From method and path to the function that answers.

use http::request::Parts;
use http::{Method, Request, header};
use hyper::body::Incoming;

use super::path::{Path, Target};
use super::query::Query;
use super::respond::{self, Response};
use super::{Api, Call, body, discovery, negotiate, openapi, pods, reviews};
use crate::Status;
use crate::kinds::Part;

/// Answers any request. `trusted`: the connection has a client certificate.
pub(super) async fn handle(api: &Api, trusted: bool, request: Request<Incoming>) -> Response {
    let (parts, incoming) = request.into_parts();
    let client = parts.headers.get(header::USER_AGENT);
    tracing::debug!(?client, method = %parts.method, uri = %parts.uri, "request");
    let outcome = match public(&parts) {
        Some(response) => Ok(response),
        None if trusted || has_token(api, &parts) => answer(api, parts, incoming).await,
        None => Err(Status::unauthorized()),
    };
    outcome.unwrap_or_else(|status| respond::failure(&status))
}

/// What anybody may ask.
fn public(parts: &Parts) -> Option<Response> {
    match parts.uri.path() {
        "/healthz" | "/livez" | "/readyz" => Some(respond::text("ok")),
        "/version" => Some(discovery::version()),
        _ => None,
    }
}

fn has_token(api: &Api, parts: &Parts) -> bool {
    let header = parts.headers.get(header::AUTHORIZATION);
    let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    token == Some(&api.token)
}

async fn answer(api: &Api, mut parts: Parts, incoming: Incoming) -> Result<Response, Status> {
    let path = parts.uri.path();
    if let Some(rest) = path.strip_prefix("/openapi/") {
        return openapi::answer(api.registry(), rest);
    }
    let registry = api.registry();
    match Path::parse(path) {
        Path::CoreVersions => discovery::core(registry, negotiate::form(&parts.headers)?),
        Path::Groups => discovery::groups(registry, negotiate::form(&parts.headers)?),
        Path::Group(group) => discovery::group(registry, &group),
        Path::Version { group, version } => discovery::version_of(registry, &group, &version),
        Path::Resource(target) => {
            let query = Query::parse(&parts.uri)?;
            if target.plural == "pods" && target.subresource.as_deref() == Some("exec") {
                return pods::exec(api, &target, &query, &mut parts).await;
            }
            let bytes = body::read(incoming).await?;
            if let Some(answer) = reviews::answer(&parts, &target, &bytes) {
                return answer;
            }
            on_resource(api, &parts, &target, &query, &bytes).await
        }
        Path::Other => Err(Status::no_such_resource()),
    }
}

async fn on_resource(
    api: &Api,
    parts: &Parts,
    target: &Target,
    query: &Query,
    bytes: &[u8],
) -> Result<Response, Status> {
    let resource = api
        .registry()
        .resource(&target.group, &target.version, &target.plural)
        .ok_or_else(Status::no_such_resource)?;
    let spec = &resource.spec;
    if target.namespace.is_some() && !spec.namespaced {
        return Err(Status::no_such_resource());
    }
    if spec.namespaced && target.name.is_some() && target.namespace.is_none() {
        return Err(Status::no_such_resource());
    }
    if let (Some(name), Some("log")) = (&target.name, target.subresource.as_deref())
        && spec.kind == "Pod"
        && parts.method == Method::GET
    {
        return pods::log(api, target, name, query).await;
    }
    let form = negotiate::form(&parts.headers)?;
    let call = Call {
        api,
        resource,
        target,
        query,
        headers: &parts.headers,
        form,
    };
    match (&target.name, target.subresource.as_deref()) {
        (None, _) => call.on_collection(&parts.method, bytes),
        (Some(name), None) => call.on_object(&parts.method, name, bytes),
        (Some(name), Some(subresource)) => {
            call.on_subresource(&parts.method, name, subresource, bytes)
        }
    }
}

impl Call<'_> {
    fn on_collection(&self, method: &Method, bytes: &[u8]) -> Result<Response, Status> {
        match *method {
            Method::GET if self.query.flag("watch")? => self.watch(),
            Method::GET => self.list(),
            Method::POST => self.create(bytes),
            Method::DELETE => self.delete_collection(bytes),
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn on_object(&self, method: &Method, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        match *method {
            Method::GET if self.query.flag("watch")? => self.watch(),
            Method::GET => self.get(name),
            Method::PUT => self.replace(name, Part::Main, bytes),
            Method::PATCH => self.patch(name, Part::Main, bytes),
            Method::DELETE => self.delete(name, bytes),
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn on_subresource(
        &self,
        method: &Method,
        name: &str,
        subresource: &str,
        bytes: &[u8],
    ) -> Result<Response, Status> {
        let spec = &self.resource.spec;
        let read = *method == Method::GET;
        let known = match (&*spec.kind, subresource) {
            (_, "status") if spec.status => match *method {
                Method::GET => Some(self.get(name)),
                Method::PUT => Some(self.replace(name, Part::Status, bytes)),
                Method::PATCH => Some(self.patch(name, Part::Status, bytes)),
                _ => None,
            },
            (_, "scale") if spec.scale.is_some() => match *method {
                Method::GET => Some(self.get_scale(name)),
                Method::PUT => Some(self.replace_scale(name, bytes)),
                Method::PATCH => Some(self.patch_scale(name, bytes)),
                _ => None,
            },
            ("Pod", "binding") if !read => Some(self.bind(name, bytes)),
            ("Pod", "eviction") if !read => Some(self.evict(name, bytes)),
            _ => return Err(Status::no_such_resource()),
        };
        known.unwrap_or_else(|| Err(Status::method_not_allowed()))
    }
}
