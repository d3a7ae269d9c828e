//! GET of an object and of a list, in the form that the client accepts.

use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use super::negotiate::Form;
use super::respond::{self, Response};
use crate::Status;
use crate::registry::{Page, Resource};
use crate::storage::Object;
use crate::table::{self, Printer};

impl Call<'_> {
    pub(super) fn get(&self, name: &str) -> Result<Response, Status> {
        let object = self
            .api
            .registry()
            .get(&self.resource, self.namespace(), name)?;
        self.answer(StatusCode::OK, &object)
    }

    pub(super) fn list(&self) -> Result<Response, Status> {
        let options = self.query.list(&self.resource.spec)?;
        let namespace = self.target.namespace.as_deref();
        let page = self
            .api
            .registry()
            .list(&self.resource, namespace, &options)?;
        match self.form {
            Form::Table(version) => {
                let objects = page.objects.iter().map(AsRef::as_ref);
                let printer = Printer::of(&self.resource.spec);
                let include = self.query.include()?;
                let table = printer.table(version, list_metadata(&page), objects, include, true);
                Ok(respond::json(StatusCode::OK, &table))
            }
            Form::Partial => {
                let items: Vec<_> = page.objects.iter().map(|it| table::partial(it)).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": list_metadata(&page),
                    "items": items,
                });
                Ok(respond::json(StatusCode::OK, &list))
            }
            _ => Ok(respond::content(
                StatusCode::OK,
                "application/json",
                list(&self.resource, &page),
            )),
        }
    }

    /// One object as the answer to a read or a write.
    pub(super) fn answer(&self, code: StatusCode, object: &Object) -> Result<Response, Status> {
        match self.form {
            Form::Table(version) => {
                let printer = Printer::of(&self.resource.spec);
                let metadata = json!({ "resourceVersion": object.revision.to_string() });
                let objects = std::iter::once(object);
                let include = self.query.include()?;
                let table = printer.table(version, metadata, objects, include, true);
                Ok(respond::json(code, &table))
            }
            Form::Partial => Ok(respond::json(code, &table::partial(object))),
            _ => Ok(respond::content(
                code,
                "application/json",
                object.json.clone(),
            )),
        }
    }
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(token) = &page.token {
        metadata["continue"] = Value::from(token.as_str());
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = Value::from(remaining);
    }
    metadata
}

/// A list of whole objects: their stored bytes, joined.
fn list(resource: &Resource, page: &Page) -> Vec<u8> {
    let kind = format!("{}List", resource.spec.kind);
    let head = format!(
        r#"{{"kind":{},"apiVersion":{},"metadata":{},"items":["#,
        Value::from(kind),
        Value::from(resource.spec.api_version()),
        list_metadata(page),
    );
    let items: usize = page
        .objects
        .iter()
        .map(|object| object.json.len() + 1)
        .sum();
    let mut bytes = Vec::with_capacity(head.len() + items + 2);
    bytes.extend_from_slice(head.as_bytes());
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(&object.json);
    }
    bytes.extend_from_slice(b"]}");
    bytes
}
