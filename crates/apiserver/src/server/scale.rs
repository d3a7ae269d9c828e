//! The scale subresource: an object's replicas as an `autoscaling/v1 Scale`.

use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use super::body;
use super::respond::{self, Response};
use super::write::Patch;
use crate::kinds::{Part, ScalePaths};
use crate::registry::{Update, WriteOptions};
use crate::storage::Object;
use crate::table::selector_terms;
use crate::{Cause, Status};

impl Call<'_> {
    pub(super) fn get_scale(&self, name: &str) -> Result<Response, Status> {
        let object = self
            .api
            .registry()
            .get(&self.resource, self.namespace(), name)?;
        Ok(respond::json(
            StatusCode::OK,
            &scale_of(self.paths()?, &object),
        ))
    }

    pub(super) fn replace_scale(&self, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        let scale = body::object(self.headers, bytes)?;
        self.change_scale(name, |_| Ok(scale.clone()))
    }

    pub(super) fn patch_scale(&self, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        let spec = &self.resource.spec;
        let patch = Patch::parse(self.headers, self.query, spec, bytes)?;
        self.change_scale(name, |scale| match &patch {
            // A Scale has no lists, so all merges are the same.
            Patch::Strategic(body) | Patch::Apply { body, .. } => {
                Patch::Merge(body.clone()).apply(spec, Part::Main, Some(scale))
            }
            other => other.apply(spec, Part::Main, Some(scale)),
        })
    }

    fn change_scale(
        &self,
        name: &str,
        change: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Response, Status> {
        let paths = self.paths()?;
        let options = WriteOptions {
            subresource: "scale",
            ..self.write_options()?
        };
        let update = Update {
            resource: &self.resource,
            namespace: self.namespace(),
            name,
            part: Part::Main,
            or_create: false,
            options: &options,
        };
        let written = self.api.registry().update(&update, |current| {
            let current = current.ok_or_else(|| self.resource.not_found(name))?;
            let scale = change(&scale_of(paths, current))?;
            let replicas = replicas_of(&scale, name)?;
            let mut object = current.value.clone();
            set(&mut object, &paths.spec_replicas, replicas);
            object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
                .into();
            Ok(object)
        })?;
        Ok(respond::json(
            StatusCode::OK,
            &scale_of(paths, &written.object),
        ))
    }

    fn paths(&self) -> Result<&ScalePaths, Status> {
        self.resource
            .spec
            .scale
            .as_ref()
            .ok_or_else(Status::no_such_resource)
    }
}

/// A missing number is 0, as Go decodes it.
fn replicas_of(scale: &Value, name: &str) -> Result<i64, Status> {
    let replicas = &scale["spec"]["replicas"];
    let invalid = |cause| Err(Status::invalid("autoscaling", "Scale", name, vec![cause]));
    match replicas.as_i64() {
        Some(number) if number >= 0 => Ok(number),
        None if replicas.is_null() => Ok(0),
        None => {
            let why = "must be a whole number";
            invalid(Cause::invalid("spec.replicas", replicas.clone(), why))
        }
        Some(number) => {
            let why = "must be greater than or equal to 0";
            invalid(Cause::invalid("spec.replicas", number, why))
        }
    }
}

fn scale_of(paths: &ScalePaths, object: &Object) -> Value {
    let metadata = &object.value["metadata"];
    let mut status = json!({ "replicas": number(&object.value, &paths.status_replicas) });
    if let Some(path) = &paths.selector {
        let selector = find(&object.value, path);
        let text = match selector.as_str() {
            Some(text) => text.to_owned(),
            None => selector_terms(selector).join(","),
        };
        status["selector"] = Value::from(text);
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": number(&object.value, &paths.spec_replicas) },
        "status": status,
    })
}

fn find<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .filter(|part| !part.is_empty())
        .fold(object, |value, part| &value[part])
}

fn number(object: &Value, path: &str) -> i64 {
    find(object, path).as_i64().unwrap_or(0)
}

fn set(object: &mut Value, path: &str, number: i64) {
    let mut place = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = Value::from(number);
}
