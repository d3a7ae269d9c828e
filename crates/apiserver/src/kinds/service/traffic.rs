//! Affinity, traffic policies and what only load balancers have.

use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::{int, text, texts};
use super::super::names;
use super::super::path::Path;
use super::super::pod::{choice, port_number};
use super::{externally_accessible, is_type, needs_health_check};

/// One day.
const MAX_AFFINITY_SECONDS: i64 = 86400;
const POLICIES: &[&str] = &["Cluster", "Local"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    affinity(spec, path, errors);
    external(spec, path, errors);
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() && !POLICIES.contains(&internal) {
        errors.not_supported(&path.child("internalTrafficPolicy"), internal, POLICIES);
    }
    if let Some(distribution) = spec.get("trafficDistribution").and_then(Value::as_str)
        && !DISTRIBUTIONS.contains(&distribution)
    {
        let path = path.child("trafficDistribution");
        errors.not_supported(&path, distribution, DISTRIBUTIONS);
    }
    load_balancer(spec, path, errors);
}

fn affinity(spec: &Value, path: &Path, errors: &mut Errors) {
    choice(spec, "sessionAffinity", &["ClientIP", "None"], path, errors);
    if let Some(seconds) = spec
        .pointer("/sessionAffinityConfig/clientIP/timeoutSeconds")
        .and_then(Value::as_i64)
        && !(1..=MAX_AFFINITY_SECONDS).contains(&seconds)
    {
        let path = path.child("sessionAffinityConfig").child("clientIP");
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.invalid(&path.child("timeoutSeconds"), seconds, &detail);
    }
}

fn external(spec: &Value, path: &Path, errors: &mut Errors) {
    let policy = text(spec, "externalTrafficPolicy");
    let policy_path = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        choice(spec, "externalTrafficPolicy", POLICIES, path, errors);
    } else if !policy.is_empty() {
        errors.invalid(
            &policy_path,
            policy,
            "may only be set for externally-accessible services",
        );
    }
    if let Some(port) = int(spec, "healthCheckNodePort") {
        let path = path.child("healthCheckNodePort");
        if needs_health_check(spec) {
            port_number(port, &path, errors);
        } else {
            errors.invalid(
                &path,
                port,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            );
        }
    }
}

fn load_balancer(spec: &Value, path: &Path, errors: &mut Errors) {
    if !is_type(spec, "LoadBalancer") {
        for field in [
            "loadBalancerSourceRanges",
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
        ] {
            if spec.get(field).is_some() {
                errors.forbidden(&path.child(field), ONLY_LOAD_BALANCER);
            }
        }
        return;
    }
    for (index, range) in texts(spec, "loadBalancerSourceRanges")
        .into_iter()
        .enumerate()
    {
        let path = path.child("loadBalancerSourceRanges").index(index);
        // Blanks around them have always been allowed.
        address::block(&path, range.trim(), errors);
    }
    let class = text(spec, "loadBalancerClass");
    if !class.is_empty() {
        let path = path.child("loadBalancerClass");
        errors.invalid_all(&path, class, names::label_key(class));
    }
    let address = text(spec, "loadBalancerIP");
    if !address.is_empty() {
        address::ip(&path.child("loadBalancerIP"), address, errors);
    }
}
