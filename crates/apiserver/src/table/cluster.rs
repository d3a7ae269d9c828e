//! Nodes, namespaces, configuration, events and the rest.

use serde_json::{Value, json};

use super::{Header, age, ago, list, name, number, or_none, text};

pub(super) const NODE: &[Header] = &[
    ("Name", "string", 0),
    ("Status", "string", 0),
    ("Roles", "string", 0),
    ("Age", "string", 0),
    ("Version", "string", 0),
    ("Internal-IP", "string", 1),
    ("External-IP", "string", 1),
    ("OS-Image", "string", 1),
    ("Kernel-Version", "string", 1),
    ("Container-Runtime", "string", 1),
];

pub(super) fn node(object: &Value, now: i64) -> Vec<Value> {
    let address = |kind: &str| {
        let found = list(object, "/status/addresses")
            .iter()
            .find(|it| text(it, "/type") == kind);
        or_none(found.map(|it| text(it, "/address")).unwrap_or_default())
    };
    let info = |field: &str| match text(object, &format!("/status/nodeInfo/{field}")) {
        "" => "<unknown>".to_owned(),
        value => value.to_owned(),
    };
    vec![
        name(object),
        json!(node_status(object)),
        json!(roles(object)),
        age(object, now),
        json!(text(object, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn node_status(object: &Value) -> String {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|it| text(it, "/type") == "Ready");
    let mut status = match ready.map(|it| text(it, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Value) -> String {
    let labels = object["metadata"]["labels"].as_object();
    let mut roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

pub(super) const NAMESPACE: &[Header] = &[
    ("Name", "string", 0),
    ("Status", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn namespace(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/status/phase")),
        age(object, now),
    ]
}

pub(super) const CONFIG_MAP: &[Header] = &[
    ("Name", "string", 0),
    ("Data", "integer", 0),
    ("Age", "string", 0),
];

pub(super) fn config_map(object: &Value, now: i64) -> Vec<Value> {
    let count = entries(object, "data") + entries(object, "binaryData");
    vec![name(object), json!(count), age(object, now)]
}

fn entries(object: &Value, field: &str) -> usize {
    object[field].as_object().map_or(0, serde_json::Map::len)
}

pub(super) const SECRET: &[Header] = &[
    ("Name", "string", 0),
    ("Type", "string", 0),
    ("Data", "integer", 0),
    ("Age", "string", 0),
];

pub(super) fn secret(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/type")),
        json!(entries(object, "data")),
        age(object, now),
    ]
}

pub(super) const SERVICE_ACCOUNT: &[Header] = &[
    ("Name", "string", 0),
    ("Secrets", "integer", 0),
    ("Age", "string", 0),
];

pub(super) fn service_account(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(list(object, "/secrets").len()),
        age(object, now),
    ]
}

pub(super) const EVENT: &[Header] = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "integer", 1),
    ("Name", "string", 1),
];

pub(super) fn event(object: &Value, now: i64) -> Vec<Value> {
    // Events of the newer API have a time, those of the older a first and last.
    let either = |field: &str, other: &str| match &object[field] {
        Value::Null => ago(&object[other], now),
        time => ago(time, now),
    };
    let first = either("firstTimestamp", "eventTime");
    let last = match object.pointer("/series/lastObservedTime") {
        Some(time) if !time.is_null() => ago(time, now),
        _ if object["lastTimestamp"].is_null() => first.clone(),
        _ => ago(&object["lastTimestamp"], now),
    };
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let about = match text(object, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = match (
        text(object, "/source/component"),
        text(object, "/source/host"),
    ) {
        ("", _) => text(object, "/reportingComponent").to_owned(),
        (component, "") => component.to_owned(),
        (component, host) => format!("{component}, {host}"),
    };
    let count = match (number(object, "/series/count"), number(object, "/count")) {
        (0, 0) => 1,
        (0, count) => count,
        (series, _) => series,
    };
    vec![
        json!(last),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(about),
        json!(text(object, "/involvedObject/fieldPath")),
        json!(source),
        json!(text(object, "/message").trim()),
        json!(first),
        json!(count),
        name(object),
    ]
}

pub(super) const LEASE: &[Header] = &[
    ("Name", "string", 0),
    ("Holder", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn lease(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/spec/holderIdentity")),
        age(object, now),
    ]
}

pub(super) const DEFINITION: &[Header] = &[("Name", "string", 0), ("Created At", "date", 0)];

pub(super) fn definition(object: &Value, _now: i64) -> Vec<Value> {
    vec![
        name(object),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}

pub(super) const OTHER: &[Header] = &[("Name", "string", 0), ("Age", "string", 0)];

pub(super) fn other(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), age(object, now)]
}
