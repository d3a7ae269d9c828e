//! POST, PUT, PATCH and DELETE.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::respond::{self, Response};
use super::{Call, body, protobuf};
use crate::kinds::{KindSpec, Part};
use crate::registry::{
    DeleteOptions, Deleted, ListOptions, Propagation, Update, WriteOptions, Written,
};
use crate::storage::Object;
use crate::{Cause, Reason, Status, patch};

impl Call<'_> {
    /// The whole object that was sent.
    fn object(&self, bytes: &[u8]) -> Result<Value, Status> {
        match body::media_type(self.headers) {
            protobuf::MEDIA_TYPE => protobuf::object(&self.resource.spec, bytes),
            _ => body::object(self.headers, bytes),
        }
    }

    pub(super) fn create(&self, bytes: &[u8]) -> Result<Response, Status> {
        let object = self.object(bytes)?;
        let options = self.write_options()?;
        let namespace = self.namespace();
        if self.resource.spec.namespaced && namespace.is_empty() {
            return Err(Status::bad_request(
                "an empty namespace may not be set during creation",
            ));
        }
        let written = self
            .api
            .registry()
            .create(&self.resource, namespace, object, &options)?;
        self.written(&written)
    }

    pub(super) fn replace(&self, name: &str, part: Part, bytes: &[u8]) -> Result<Response, Status> {
        let object = self.object(bytes)?;
        let options = self.write_options()?;
        let update = self.update(name, part, false, &options);
        let written = self
            .api
            .registry()
            .update(&update, |_| Ok(object.clone()))?;
        self.written(&written)
    }

    pub(super) fn patch(&self, name: &str, part: Part, bytes: &[u8]) -> Result<Response, Status> {
        let change = Patch::parse(self.headers, self.query, &self.resource.spec, bytes)?;
        let mut options = self.write_options()?;
        let applies = matches!(change, Patch::Apply { .. });
        if applies {
            // It has set the managers itself.
            options.manager.clear();
        }
        let or_create = applies && part == Part::Main;
        let update = self.update(name, part, or_create, &options);
        let spec = &self.resource.spec;
        let written = self.api.registry().update(&update, |current| {
            change.apply(spec, part, current.map(|current| &current.value))
        })?;
        self.written(&written)
    }

    fn update<'a>(
        &'a self,
        name: &'a str,
        part: Part,
        or_create: bool,
        options: &'a WriteOptions,
    ) -> Update<'a> {
        Update {
            resource: &self.resource,
            namespace: self.namespace(),
            name,
            part,
            or_create,
            options,
        }
    }

    pub(super) fn written(&self, written: &Written) -> Result<Response, Status> {
        let code = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = self.answer(code, &self.resource.view(written.object.clone()))?;
        add_warnings(response.headers_mut(), &written.warnings);
        Ok(response)
    }

    pub(super) fn delete(&self, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        let options = self.delete_options(bytes)?;
        let deleted =
            self.api
                .registry()
                .delete(&self.resource, self.namespace(), name, &options)?;
        let spec = &self.resource.spec;
        match deleted {
            // As in Kubernetes: pods and services are answered with themselves.
            Deleted::Removed(object)
                if spec.group.is_empty() && matches!(&*spec.kind, "Pod" | "Service") =>
            {
                self.answer(StatusCode::OK, &object)
            }
            Deleted::Removed(object) => Ok(respond::json(StatusCode::OK, &success(spec, &object))),
            Deleted::Marked(object) => self.answer(StatusCode::OK, &self.resource.view(object)),
        }
    }

    pub(super) fn delete_collection(&self, bytes: &[u8]) -> Result<Response, Status> {
        let options = self.delete_options(bytes)?;
        let registry = self.api.registry();
        let namespace = self.target.namespace.as_deref();
        let list = ListOptions {
            selector: self.query.selector(&self.resource.spec)?,
            ..ListOptions::default()
        };
        for object in registry.list(&self.resource, namespace, &list)?.objects {
            match registry.delete(&self.resource, object.namespace(), object.name(), &options) {
                // Somebody else was faster.
                Err(status) if status.reason == Reason::NotFound => {}
                outcome => drop(outcome?),
            }
        }
        let done = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "kind": self.resource.spec.plural, "group": self.resource.spec.group },
        });
        Ok(respond::json(StatusCode::OK, &done))
    }

    /// From the body, else from the query.
    fn delete_options(&self, bytes: &[u8]) -> Result<DeleteOptions, Status> {
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            body::object(self.headers, bytes)?
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let grace = match &body["gracePeriodSeconds"] {
            Value::Null => self.query.number("gracePeriodSeconds")?,
            value => Some(value.as_i64().ok_or_else(|| {
                Status::bad_request("DeleteOptions: gracePeriodSeconds is not a number")
            })?),
        };
        let policy = match body["propagationPolicy"].as_str() {
            Some(policy) => policy,
            None => self.query.get("propagationPolicy"),
        };
        let orphan = body["orphanDependents"] == true || self.query.flag("orphanDependents")?;
        let propagation = match policy {
            "" if orphan => Propagation::Orphan,
            "" | "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                let supported = ["Background", "Foreground", "Orphan"];
                let cause = Cause::not_supported("propagationPolicy", other, &supported);
                return Err(Status::invalid(
                    "meta.k8s.io",
                    "DeleteOptions",
                    "",
                    vec![cause],
                ));
            }
        };
        let dry_run = body["dryRun"]
            .as_array()
            .is_some_and(|list| list.iter().any(|it| it == "All"));
        Ok(DeleteOptions {
            grace_seconds: grace,
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            revision: text(&body["preconditions"]["resourceVersion"]),
            dry_run: dry_run || self.query.dry_run()?,
        })
    }
}

/// A parsed PATCH.
pub(super) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply {
        body: Value,
        manager: String,
        force: bool,
    },
}

impl Patch {
    pub(super) fn parse(
        headers: &HeaderMap,
        query: &super::query::Query,
        spec: &KindSpec,
        bytes: &[u8],
    ) -> Result<Self, Status> {
        let kind = body::media_type(headers);
        let force = query.flag("force")?;
        if force && kind != "application/apply-patch+yaml" {
            let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                vec![cause],
            ));
        }
        match kind {
            "application/json-patch+json" => Ok(Self::Json(body::json(bytes)?)),
            "application/merge-patch+json" => Ok(Self::Merge(body::json(bytes)?)),
            "application/strategic-merge-patch+json" if !spec.is_custom() => {
                Ok(Self::Strategic(body::json(bytes)?))
            }
            "application/apply-patch+yaml" => {
                let manager = query.get("fieldManager");
                if manager.is_empty() {
                    let cause = Cause::required("fieldManager", "is required for apply patch");
                    return Err(Status::invalid(
                        "meta.k8s.io",
                        "PatchOptions",
                        "",
                        vec![cause],
                    ));
                }
                Ok(Self::Apply {
                    body: body::yaml(bytes)?,
                    manager: manager.to_owned(),
                    force,
                })
            }
            other => Err(body::unsupported(
                other,
                "application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json (built-in kinds), \
                 application/apply-patch+yaml",
            )),
        }
    }

    /// The object that the stored one becomes.
    pub(super) fn apply(
        &self,
        spec: &KindSpec,
        part: Part,
        current: Option<&Value>,
    ) -> Result<Value, Status> {
        match self {
            Self::Json(body) => patch::json(spec, current, body),
            Self::Merge(body) => patch::merge(spec, current, body),
            Self::Strategic(body) => patch::strategic(spec, current, body),
            Self::Apply {
                body,
                manager,
                force,
            } => {
                let writer = patch::Writer {
                    manager,
                    subresource: match part {
                        Part::Main => "",
                        Part::Status => "status",
                    },
                    now: &crate::registry::now(),
                };
                patch::apply(spec, current, body, &writer, *force)
            }
        }
    }
}

fn success(spec: &KindSpec, object: &Object) -> Value {
    let mut details = json!({ "name": object.name(), "kind": spec.plural, "uid": object.uid() });
    if !spec.group.is_empty() {
        details["group"] = Value::from(spec.group.as_str());
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

/// `299 - "text"` (RFC 7234, as Kubernetes uses it).
fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            headers.append(http::header::WARNING, value);
        }
    }
}
