//! ReplicaSets.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{default, object_mut};
use super::super::path::Path;
use super::super::pod::not_negative;
use super::super::rules::{Builtin, PLAIN};
use super::{default_template, immutable, validate_selector, validate_template};

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    validate,
    validate_update: |new, old, errors| immutable(new, old, "selector", errors),
    ..PLAIN
};

fn defaults(set: &mut Value) {
    let spec = object_mut(set, "spec");
    default(spec, "replicas", 1);
    default_template(spec);
}

fn validate(set: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &set["spec"];
    not_negative(spec, "replicas", &path, errors);
    not_negative(spec, "minReadySeconds", &path, errors);
    validate_selector(spec, "ReplicaSet", &path, errors);
    validate_template(spec, "ReplicaSet", &path, errors);
}
