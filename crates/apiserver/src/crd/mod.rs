//! CustomResourceDefinitions: kinds that are made while the server runs.

mod definition;
mod structural;
mod validate;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use definition::check;
pub(crate) use validate::Schema;

use crate::kinds::{KindSpec, PrinterColumn, ScalePaths};
use crate::registry::now;

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const KIND: &str = "CustomResourceDefinition";
/// Where definitions are stored.
pub(crate) const COLLECTION: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// One served version of a definition.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) spec: KindSpec,
    pub(crate) schema: Option<Arc<Schema>>,
}

/// The kinds that a stored definition makes.
pub(crate) fn served(definition: &Value) -> Vec<Served> {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| {
            let schema = &version["schema"]["openAPIV3Schema"];
            Served {
                spec: kind_spec(spec, names, version),
                schema: schema.is_object().then(|| Arc::new(Schema::new(schema))),
            }
        })
        .collect()
}

fn kind_spec(spec: &Value, names: &Value, version: &Value) -> KindSpec {
    let mut kind = KindSpec::default();
    kind.group = text(&spec["group"]);
    kind.version = text(&version["name"]);
    kind.kind = text(&names["kind"]);
    kind.plural = text(&names["plural"]);
    kind.singular = text(&names["singular"]);
    kind.short_names = texts(&names["shortNames"]);
    kind.categories = texts(&names["categories"]);
    kind.namespaced = spec["scope"] == "Namespaced";
    kind.status = version["subresources"]["status"].is_object();
    kind.generation = true;
    kind.schema = Arc::new(structural::root(&version["schema"]["openAPIV3Schema"]));
    let scale = &version["subresources"]["scale"];
    let path = |field: &str| text(&scale[field]).trim_start_matches('.').to_owned();
    kind.scale = scale.is_object().then(|| ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: scale["labelSelectorPath"]
            .is_string()
            .then(|| path("labelSelectorPath")),
    });
    let columns = version["additionalPrinterColumns"].as_array();
    kind.columns = columns
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(column)
        .collect();
    kind
}

fn column(column: &Value) -> PrinterColumn {
    PrinterColumn {
        name: text(&column["name"]),
        type_: text(&column["type"]),
        format: text(&column["format"]),
        description: text(&column["description"]),
        priority: column["priority"].as_i64().unwrap_or(0),
        json_path: text(&column["jsonPath"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect()
}

/// Fills in the names that may be left out.
pub(crate) fn set_defaults(definition: &mut Value) {
    let names = &mut definition["spec"]["names"];
    let kind = text(&names["kind"]);
    if !kind.is_empty() && names["singular"].as_str().unwrap_or_default().is_empty() {
        names["singular"] = json!(kind.to_lowercase());
    }
    if !kind.is_empty() && names["listKind"].as_str().unwrap_or_default().is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({ "strategy": "None" });
    }
}

/// Sets the status of a definition that has been checked: it is served at once.
pub(crate) fn establish(definition: &mut Value) {
    let names = definition["spec"]["names"].clone();
    let mut stored = texts(&definition["status"]["storedVersions"]);
    let versions = definition["spec"]["versions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    for version in versions.iter().filter(|version| version["storage"] == true) {
        let name = text(&version["name"]);
        if !stored.contains(&name) {
            stored.push(name);
        }
    }
    let status = &mut definition["status"];
    if !status.is_object() {
        *status = json!({});
    }
    status["acceptedNames"] = names;
    status["storedVersions"] = json!(stored);
    set_condition(
        status,
        "NamesAccepted",
        "True",
        "NoConflicts",
        "no conflicts found",
    );
    set_condition(
        status,
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
    );
}

pub(crate) fn mark_terminating(definition: &mut Value) {
    let status = &mut definition["status"];
    let message = "CustomResource deletion is in progress";
    set_condition(
        status,
        "Terminating",
        "True",
        "InstanceDeletionInProgress",
        message,
    );
}

fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return;
    };
    if conditions
        .iter()
        .any(|it| it["type"] == kind && it["status"] == value)
    {
        return;
    }
    conditions.retain(|it| it["type"] != kind);
    conditions.push(json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": now(),
    }));
}

#[cfg(test)]
mod tests;
