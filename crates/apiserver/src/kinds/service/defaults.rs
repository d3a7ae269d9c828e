//! Defaults of Services (`k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use super::super::get::{self, default, list_mut, text};
use super::{externally_accessible, is_type};

/// Three hours.
const AFFINITY_SECONDS: i64 = 10800;

pub(super) fn service(service: &mut Value) {
    let spec = get::object_mut(service, "spec");
    default(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "None" {
        get::set(spec, "sessionAffinityConfig", None);
    }
    if text(spec, "sessionAffinity") == "ClientIP" {
        default(spec, "sessionAffinityConfig", json!({}));
        default(&mut spec["sessionAffinityConfig"], "clientIP", json!({}));
        let client = &mut spec["sessionAffinityConfig"]["clientIP"];
        default(client, "timeoutSeconds", AFFINITY_SECONDS);
    }
    default(spec, "type", "ClusterIP");
    for port in list_mut(spec, "ports") {
        let number = port.get("port").cloned();
        let unset = match port.get("targetPort") {
            None => true,
            Some(target) => target == 0 || target == "",
        };
        if unset && let Some(number) = number {
            get::set(port, "targetPort", Some(number));
        }
    }
    if externally_accessible(spec) {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if !is_type(spec, "ExternalName") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if is_type(spec, "LoadBalancer") {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    one_and_many(spec);
}

/// `clusterIP` and the first of `clusterIPs` are the same; either may be given.
fn one_and_many(spec: &mut Value) {
    let one = spec.get("clusterIP").cloned();
    let many = spec.pointer("/clusterIPs/0").cloned();
    match (one, many) {
        (Some(one), None) => default(spec, "clusterIPs", json!([one])),
        (None, Some(first)) => default(spec, "clusterIP", first),
        _ => {}
    }
}
