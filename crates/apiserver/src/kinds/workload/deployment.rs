//! Deployments.

use serde_json::{Value, json};

use super::super::error::Errors;
use super::super::get::{default, int, object_mut, text};
use super::super::path::Path;
use super::super::pod::{choice, not_negative};
use super::super::rules::{Builtin, PLAIN};
use super::{default_template, immutable, rolling, validate_selector, validate_template};

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    validate,
    validate_update: |new, old, errors| immutable(new, old, "selector", errors),
    ..PLAIN
};

fn defaults(deployment: &mut Value) {
    let spec = object_mut(deployment, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = object_mut(spec, "strategy");
    default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        default(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
    default_template(spec);
}

fn validate(deployment: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &deployment["spec"];
    for field in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        not_negative(spec, field, &path, errors);
    }
    validate_selector(spec, "deployment", &path, errors);
    validate_template(spec, "ReplicaSet", &path, errors);
    strategy(&spec["strategy"], &path.child("strategy"), errors);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds")
        && deadline <= int(spec, "minReadySeconds").unwrap_or_default()
    {
        let path = path.child("progressDeadlineSeconds");
        errors.invalid(&path, deadline, "must be greater than minReadySeconds");
    }
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    choice(
        strategy,
        "type",
        &["Recreate", "RollingUpdate"],
        path,
        errors,
    );
    let rolling = &strategy["rollingUpdate"];
    let path = path.child("rollingUpdate");
    if rolling.is_null() {
        return;
    }
    if text(strategy, "type") == "Recreate" {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        return errors.forbidden(&path, detail);
    }
    for field in ["maxUnavailable", "maxSurge"] {
        rolling::count_or_percent(rolling, field, &path, errors);
    }
    rolling::at_most_all(rolling, "maxUnavailable", &path, errors);
    if rolling::is_zero(rolling, "maxUnavailable") && rolling::is_zero(rolling, "maxSurge") {
        let value = rolling["maxUnavailable"].clone();
        errors.invalid(
            &path.child("maxUnavailable"),
            value,
            "may not be 0 when `maxSurge` is 0",
        );
    }
}
