//! What makes pods.

use serde_json::{Value, json};

use super::{Header, age, duration, list, name, number, seconds, selector, text};

pub(super) const DEPLOYMENT: &[Header] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Up-to-date", "integer", 0),
    ("Available", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) fn deployment(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(format!(
            "{}/{}",
            number(object, "/status/readyReplicas"),
            number(object, "/spec/replicas")
        )),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        age(object, now),
        containers(object),
        images(object),
        selected(object),
    ]
}

pub(super) const REPLICA_SET: &[Header] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) fn replica_set(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        age(object, now),
        containers(object),
        images(object),
        selected(object),
    ]
}

pub(super) const STATEFUL_SET: &[Header] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
];

pub(super) fn stateful_set(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(format!(
            "{}/{}",
            number(object, "/status/readyReplicas"),
            number(object, "/spec/replicas")
        )),
        age(object, now),
        containers(object),
        images(object),
    ]
}

pub(super) const DAEMON_SET: &[Header] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Up-to-date", "integer", 0),
    ("Available", "integer", 0),
    ("Node Selector", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) fn daemon_set(object: &Value, now: i64) -> Vec<Value> {
    let nodes = object
        .pointer("/spec/template/spec/nodeSelector")
        .unwrap_or(&Value::Null);
    vec![
        name(object),
        json!(number(object, "/status/desiredNumberScheduled")),
        json!(number(object, "/status/currentNumberScheduled")),
        json!(number(object, "/status/numberReady")),
        json!(number(object, "/status/updatedNumberScheduled")),
        json!(number(object, "/status/numberAvailable")),
        json!(selector(nodes, "<none>")),
        age(object, now),
        containers(object),
        images(object),
        selected(object),
    ]
}

pub(super) const JOB: &[Header] = &[
    ("Name", "string", 0),
    ("Status", "string", 0),
    ("Completions", "string", 0),
    ("Duration", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) fn job(object: &Value, now: i64) -> Vec<Value> {
    let succeeded = number(object, "/status/succeeded");
    let parallelism = object
        .pointer("/spec/parallelism")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let start = object.pointer("/status/startTime").and_then(seconds);
    let end = object.pointer("/status/completionTime").and_then(seconds);
    let took = start
        .map(|start| duration::human(end.unwrap_or(now) - start))
        .unwrap_or_default();
    vec![
        name(object),
        json!(job_status(object)),
        json!(completions),
        json!(took),
        age(object, now),
        containers(object),
        images(object),
        selected(object),
    ]
}

fn job_status(object: &Value) -> &'static str {
    let is = |kind: &str| {
        list(object, "/status/conditions")
            .iter()
            .any(|it| text(it, "/type") == kind && text(it, "/status") == "True")
    };
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if object.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn of_template(object: &Value, field: &str) -> Value {
    let values: Vec<_> = list(object, "/spec/template/spec/containers")
        .iter()
        .map(|container| container[field].as_str().unwrap_or_default())
        .collect();
    json!(values.join(","))
}

fn containers(object: &Value) -> Value {
    of_template(object, "name")
}

fn images(object: &Value) -> Value {
    of_template(object, "image")
}

fn selected(object: &Value) -> Value {
    json!(selector(&object["spec"]["selector"], "<none>"))
}
