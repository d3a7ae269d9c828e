//! Validation of what decides where a pod runs.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{at, int, list, text};
use super::super::labels;
use super::super::names;
use super::super::path::Path;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    tolerations(spec, &path.child("tolerations"), errors);
    node_affinity(spec, &path.child("affinity").child("nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(
            &spec["affinity"][kind],
            &path.child("affinity").child(kind),
            errors,
        );
    }
    spread(spec, &path.child("topologySpreadConstraints"), errors);
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        let name = text(gate, "conditionType");
        let path = path
            .child("readinessGates")
            .index(index)
            .child("conditionType");
        errors.invalid_all(&path, name, names::label_key(name));
    }
}

pub(super) fn tolerations(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(index);
        let key = text(toleration, "key");
        let operator = text(toleration, "operator");
        let value = text(toleration, "value");
        let effect = text(toleration, "effect");
        if !key.is_empty() {
            errors.invalid_all(&path.child("key"), key, names::label_key(key));
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        let operator_path = path.child("operator");
        match operator {
            "" | "Equal" => errors.invalid_all(&operator_path, value, names::label_value(value)),
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&operator_path, value, detail);
            }
            "Exists" => {}
            other => errors.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&path.child("effect"), effect, EFFECTS);
        }
    }
}

fn node_affinity(spec: &Value, path: &Path, errors: &mut Errors) {
    let affinity = at(spec, &["affinity", "nodeAffinity"]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if let Some(selector) = affinity.get(required) {
        let path = path.child(required).child("nodeSelectorTerms");
        let terms = list(selector, "nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(&path, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(term, &path.index(index), errors);
        }
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(affinity, preferred).iter().enumerate() {
        let path = path.child(preferred).index(index);
        weight(term, &path, errors);
        node_term(&term["preference"], &path.child("preference"), errors);
    }
}

fn weight(term: &Value, path: &Path, errors: &mut Errors) {
    let weight = int(term, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(term: &Value, path: &Path, errors: &mut Errors) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let count = list(expression, "values").len();
        let values = path.child("values");
        match text(expression, "operator") {
            "In" | "NotIn" if count == 0 => errors.required(
                &values,
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if count != 1 => errors.required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                let path = path.child("operator");
                errors.invalid(&path, other, "not a valid selector operator");
            }
        }
        let key = text(expression, "key");
        errors.invalid_all(&path.child("key"), key, names::label_key(key));
    }
}

fn pod_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(affinity, required).iter().enumerate() {
        pod_term(term, &path.child(required).index(index), errors);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(affinity, preferred).iter().enumerate() {
        let path = path.child(preferred).index(index);
        weight(term, &path, errors);
        pod_term(
            &term["podAffinityTerm"],
            &path.child("podAffinityTerm"),
            errors,
        );
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        labels::validate_selector(&term[field], &path.child(field), errors);
    }
    topology_key(term, path, errors);
}

fn topology_key(object: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("topologyKey");
    match text(object, "topologyKey") {
        "" => errors.required(&path, "can not be empty"),
        key => errors.invalid_all(&path, key, names::label_key(key)),
    }
}

fn spread(spec: &Value, path: &Path, errors: &mut Errors) {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(index);
        let skew = int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        topology_key(constraint, &path, errors);
        let action = text(constraint, "whenUnsatisfiable");
        if !ACTIONS.contains(&action) {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS);
        }
        labels::validate_selector(
            &constraint["labelSelector"],
            &path.child("labelSelector"),
            errors,
        );
    }
}
