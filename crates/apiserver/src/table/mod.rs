//! Tables: what `kubectl get` prints. kubectl asks for
//! `application/json;as=Table` and prints the cells as they come, so the columns
//! and the wording are those of `k8s.io/kubernetes/pkg/printers/internalversion`.

mod cluster;
mod custom;
mod duration;
mod network;
mod pods;
mod workloads;

use serde::Serialize;
use serde_json::{Value, json};

use crate::kinds::KindSpec;
use crate::storage::Object;

/// A column definition.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    format: String,
    description: String,
    /// Above 0: shown with `-o wide` only.
    priority: i64,
}

/// What rows of a kind are made with: the object, and the time (seconds since
/// the epoch) that ages are counted to.
type Cells = fn(&Value, i64) -> Vec<Value>;

/// Name, type, priority.
type Header = (&'static str, &'static str, i64);

/// The columns of one kind and how to fill them.
pub(crate) struct Printer {
    columns: Vec<Column>,
    cells: Filler,
}

enum Filler {
    BuiltIn(Cells),
    Custom(custom::Columns),
}

/// Which form of the object stands in a row (query parameter `includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Printer {
    pub(crate) fn of(spec: &KindSpec) -> Self {
        if spec.is_custom() {
            let (columns, fill) = custom::columns(spec);
            return Self {
                columns,
                cells: Filler::Custom(fill),
            };
        }
        let (headers, cells): (&[Header], Cells) = match (spec.group.as_str(), spec.kind.as_str()) {
            ("", "Pod") => (pods::POD, pods::pod),
            ("", "Service") => (network::SERVICE, network::service),
            ("", "Endpoints") => (network::ENDPOINTS, network::endpoints),
            ("discovery.k8s.io", "EndpointSlice") => (network::SLICE, network::slice),
            ("networking.k8s.io", "Ingress") => (network::INGRESS, network::ingress),
            ("networking.k8s.io", "IngressClass") => {
                (network::INGRESS_CLASS, network::ingress_class)
            }
            ("networking.k8s.io", "ServiceCIDR") => (network::SERVICE_CIDR, network::service_cidr),
            ("networking.k8s.io", "NetworkPolicy") => (network::POLICY, network::policy),
            ("apps", "Deployment") => (workloads::DEPLOYMENT, workloads::deployment),
            ("apps", "ReplicaSet") => (workloads::REPLICA_SET, workloads::replica_set),
            ("apps", "StatefulSet") => (workloads::STATEFUL_SET, workloads::stateful_set),
            ("apps", "DaemonSet") => (workloads::DAEMON_SET, workloads::daemon_set),
            ("batch", "Job") => (workloads::JOB, workloads::job),
            ("", "Node") => (cluster::NODE, cluster::node),
            ("", "Namespace") => (cluster::NAMESPACE, cluster::namespace),
            ("", "ConfigMap") => (cluster::CONFIG_MAP, cluster::config_map),
            ("", "Secret") => (cluster::SECRET, cluster::secret),
            ("", "ServiceAccount") => (cluster::SERVICE_ACCOUNT, cluster::service_account),
            ("", "Event") => (cluster::EVENT, cluster::event),
            ("coordination.k8s.io", "Lease") => (cluster::LEASE, cluster::lease),
            ("apiextensions.k8s.io", _) => (cluster::DEFINITION, cluster::definition),
            _ => (cluster::OTHER, cluster::other),
        };
        let columns = headers
            .iter()
            .map(|&(name, kind, priority)| Column {
                name: name.to_owned(),
                kind: kind.to_owned(),
                format: if name == "Name" { "name" } else { "" }.to_owned(),
                description: String::new(),
                priority,
            })
            .collect();
        Self {
            columns,
            cells: Filler::BuiltIn(cells),
        }
    }

    /// A whole Table. `version` is `v1` or `v1beta1`; `metadata` is that of a list.
    pub(crate) fn table<'a>(
        &self,
        version: &str,
        metadata: Value,
        objects: impl Iterator<Item = &'a Object>,
        include: Include,
        with_columns: bool,
    ) -> Value {
        let now = now();
        let rows: Vec<_> = objects
            .map(|object| {
                let cells = match &self.cells {
                    Filler::BuiltIn(cells) => cells(&object.value, now),
                    Filler::Custom(columns) => columns.cells(&object.value, now),
                };
                json!({ "cells": cells, "object": row_object(object, include) })
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "columnDefinitions": if with_columns { json!(self.columns) } else { Value::Null },
            "rows": rows,
        })
    }
}

fn row_object(object: &Object, include: Include) -> Value {
    match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object),
        Include::Object => object.value.clone(),
    }
}

/// The object's metadata alone.
pub(crate) fn partial(object: &Object) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.value["metadata"],
    })
}

/// Seconds since the epoch.
fn now() -> i64 {
    crate::registry::epoch_seconds()
}

/// Seconds since the epoch of an API time.
fn seconds(time: &Value) -> Option<i64> {
    crate::registry::parse_time(time.as_str()?)
}

/// How long ago, in kubectl's words; `<unknown>` without a time.
fn ago(time: &Value, now: i64) -> String {
    seconds(time).map_or_else(
        || "<unknown>".to_owned(),
        |then| duration::human(now - then),
    )
}

fn age(object: &Value, now: i64) -> Value {
    Value::from(ago(&object["metadata"]["creationTimestamp"], now))
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> i64 {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// `<none>` for nothing.
fn or_none(text: &str) -> Value {
    Value::from(if text.is_empty() { "<none>" } else { text })
}

/// `a=b,c=d` of an object of strings.
fn pairs(labels: &Value) -> Vec<String> {
    labels
        .as_object()
        .map(|labels| {
            labels
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect()
        })
        .unwrap_or_default()
}

/// A LabelSelector (or a plain map of labels) as text; `empty` for nothing.
fn selector(value: &Value, empty: &str) -> String {
    let terms = selector_terms(value);
    if terms.is_empty() {
        empty.to_owned()
    } else {
        terms.join(",")
    }
}

/// The terms of a LabelSelector as the `labelSelector` parameter writes them.
pub(crate) fn selector_terms(value: &Value) -> Vec<String> {
    let expressions = list(value, "/matchExpressions");
    if value.get("matchLabels").is_none() && expressions.is_empty() {
        let plain = value
            .as_object()
            .is_some_and(|map| map.values().all(Value::is_string));
        return if plain { pairs(value) } else { Vec::new() };
    }
    let mut terms = pairs(&value["matchLabels"]);
    for expression in expressions {
        let key = text(expression, "/key");
        let values: Vec<_> = list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        terms.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms
}

#[cfg(test)]
mod tests;
