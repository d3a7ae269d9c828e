//! OpenAPI documents, as far as kubectl reads them before it applies: whether
//! the server validates fields itself.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::respond::{self, Response};
use crate::Status;
use crate::kinds::KindSpec;
use crate::registry::Registry;

/// `rest` is the path after `/openapi/`.
pub(super) fn answer(registry: &Registry, rest: &str) -> Result<Response, Status> {
    match rest.trim_end_matches('/') {
        "v2" => Ok(v2()),
        "v3" => Ok(respond::json(StatusCode::OK, &index(registry))),
        path => match path.strip_prefix("v3/") {
            Some(path) => document(registry, path),
            None => Err(Status::no_such_resource()),
        },
    }
}

/// An empty document in the one encoding that kubectl reads (protobuf,
/// `openapi.v2.Document`): it then uses the types that are compiled into it.
fn v2() -> Response {
    const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x0d\x0a\x07Ripstop\x12\x02v1";
    let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    respond::content(StatusCode::OK, kind, DOCUMENT)
}

fn index(registry: &Registry) -> Value {
    let mut paths = BTreeMap::new();
    for resource in registry.resources() {
        let path = version_path(&resource.spec);
        let url = json!({ "serverRelativeURL": format!("/openapi/v3/{path}") });
        paths.insert(path, url);
    }
    json!({ "paths": paths })
}

/// `api/v1`, `apis/apps/v1`.
fn version_path(spec: &KindSpec) -> String {
    let prefix = if spec.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", spec.api_version())
}

fn document(registry: &Registry, path: &str) -> Result<Response, Status> {
    let mut paths = Map::new();
    for resource in registry.resources() {
        let spec = &resource.spec;
        if version_path(spec) != path {
            continue;
        }
        let scope = if spec.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let url = format!("/{path}/{scope}{}/{{name}}", spec.plural);
        paths.insert(url, json!({ "patch": patch(spec) }));
    }
    if paths.is_empty() {
        return Err(Status::no_such_resource());
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "Ripstop", "version": "v1" },
        "paths": paths,
    });
    Ok(respond::json(StatusCode::OK, &document))
}

fn patch(spec: &KindSpec) -> Value {
    let parameter =
        |name: &str, kind: &str| json!({ "name": name, "in": "query", "schema": { "type": kind } });
    json!({
        "operationId": format!("patch{}", spec.kind),
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {
            "group": spec.group, "version": spec.version, "kind": spec.kind,
        },
        "parameters": [
            parameter("dryRun", "string"),
            parameter("fieldManager", "string"),
            parameter("fieldValidation", "string"),
            parameter("force", "boolean"),
        ],
        "responses": { "200": { "description": "OK" } },
    })
}
