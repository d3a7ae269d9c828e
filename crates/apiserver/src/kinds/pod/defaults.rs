//! Defaults of pods (`k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`).

use serde_json::{Map, Value, json};

use super::super::get::{self, default, entries, flag, list_mut, text};

/// Mode of files in volumes: 0644.
const FILE_MODE: i64 = 0o644;
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;

/// Fills in a Pod.
pub(super) fn pod(pod: &mut Value) {
    let Some(pod_spec) = pod.get_mut("spec") else {
        return;
    };
    for field in ["containers", "initContainers"] {
        list_mut(pod_spec, field).for_each(requests_from_limits);
    }
    spec(pod_spec);
    default(pod_spec, "enableServiceLinks", true);
    if flag(pod_spec, "hostNetwork") {
        host_ports(pod_spec);
    }
}

/// Fills in a PodTemplateSpec.
pub(in crate::kinds) fn template(template: &mut Value) {
    if let Some(pod_spec) = template.get_mut("spec") {
        spec(pod_spec);
    }
}

fn spec(spec: &mut Value) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    // Each has an older name too.
    mirror(spec, "serviceAccountName", "serviceAccount");
    list_mut(spec, "volumes").for_each(volume);
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        list_mut(spec, field).for_each(container);
    }
    for constraint in list_mut(spec, "topologySpreadConstraints") {
        if text(constraint, "whenUnsatisfiable").is_empty() {
            get::set(
                constraint,
                "whenUnsatisfiable",
                Some("DoNotSchedule".into()),
            );
        }
    }
}

fn mirror(object: &mut Value, one: &str, other: &str) {
    for (from, to) in [(one, other), (other, one)] {
        if let Some(value) = object.get(from).cloned() {
            default(object, to, value);
        }
    }
}

fn container(container: &mut Value) {
    if container.get("imagePullPolicy").is_none() {
        let policy = pull_policy(text(container, "image"));
        default(container, "imagePullPolicy", policy);
    }
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(field) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            http_get(get);
        }
    }
    for env in list_mut(container, "env") {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
}

/// `latest` is fetched anew each time, also when it is not written.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = match name.split_once('@') {
        Some(_) => false,
        None => name.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn probe(probe: &mut Value) {
    default(probe, "timeoutSeconds", 1);
    default(probe, "periodSeconds", 10);
    default(probe, "successThreshold", 1);
    default(probe, "failureThreshold", 3);
    if let Some(get) = probe.get_mut("httpGet") {
        http_get(get);
    }
}

fn http_get(get: &mut Value) {
    default(get, "path", "/");
    default(get, "scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else {
        return;
    };
    if fields.keys().all(|field| field == "name") {
        fields.insert("emptyDir".to_owned(), Value::Object(Map::new()));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = fields.get_mut(source) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = fields.get_mut("hostPath") {
        default(path, "type", "");
    }
    if let Some(downward) = fields.get_mut("downwardAPI") {
        list_mut(downward, "items").for_each(downward_item);
    }
    if let Some(projected) = fields.get_mut("projected") {
        for source in list_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", TOKEN_EXPIRATION_SECONDS);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                list_mut(downward, "items").for_each(downward_item);
            }
        }
    }
}

fn downward_item(item: &mut Value) {
    if let Some(field) = item.get_mut("fieldRef") {
        default(field, "apiVersion", "v1");
    }
}

/// What a container may use at most is what it asks for, if it says nothing else.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let limits: Vec<(String, Value)> = entries(resources, "limits")
        .map(|(name, amount)| (name.to_owned(), amount.clone()))
        .collect();
    if !limits.is_empty() {
        let requests = get::object_mut(resources, "requests");
        for (name, amount) in limits {
            default(requests, &name, amount);
        }
    }
}

/// On the host's network a container's ports are the host's.
fn host_ports(spec: &mut Value) {
    for field in ["containers", "initContainers"] {
        for container in list_mut(spec, field) {
            for port in list_mut(container, "ports") {
                if let Some(number) = port.get("containerPort").cloned() {
                    default(port, "hostPort", number);
                }
            }
        }
    }
}
