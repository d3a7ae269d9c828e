//! DaemonSets.

use serde_json::{Value, json};

use super::super::error::Errors;
use super::super::get::{default, object_mut, text};
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

fn defaults(set: &mut Value) {
    let spec = object_mut(set, "spec");
    default(spec, "revisionHistoryLimit", 10);
    let strategy = object_mut(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
        default(&mut strategy["rollingUpdate"], "maxSurge", 0);
    }
    default_template(spec);
}

fn validate(set: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &set["spec"];
    not_negative(spec, "minReadySeconds", &path, errors);
    not_negative(spec, "revisionHistoryLimit", &path, errors);
    validate_selector(spec, "daemonset", &path, errors);
    validate_template(spec, "DaemonSet", &path, errors);
    let strategy = &spec["updateStrategy"];
    let path = path.child("updateStrategy");
    choice(
        strategy,
        "type",
        &["OnDelete", "RollingUpdate"],
        &path,
        errors,
    );
    rolling_update(strategy, &path.child("rollingUpdate"), errors);
}

/// Either pods go first or pods come first: one of the two numbers is zero.
fn rolling_update(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    if rolling.is_null() {
        return;
    }
    for field in ["maxUnavailable", "maxSurge"] {
        rolling::count_or_percent(rolling, field, path, errors);
        rolling::at_most_all(rolling, field, path, errors);
    }
    let detail = match (
        rolling::is_zero(rolling, "maxUnavailable"),
        rolling::is_zero(rolling, "maxSurge"),
    ) {
        (true, true) => "cannot be 0 when maxSurge is 0",
        (false, false) => "may not be set when maxSurge is non-zero",
        _ => return,
    };
    let value = rolling["maxUnavailable"].clone();
    errors.invalid(&path.child("maxUnavailable"), value, detail);
}
