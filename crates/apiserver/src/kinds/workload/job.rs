//! Jobs.

use serde_json::{Value, json};

use super::super::error::Errors;
use super::super::get::{default, flag, int, object_mut, text};
use super::super::path::Path;
use super::super::pod::{self, choice, not_negative};
use super::super::rules::{Builtin, PLAIN};
use super::{default_template, immutable, validate_selector};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same labels before Kubernetes 1.27; both are still written.
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

pub(in crate::kinds) static RULES: Builtin = Builtin {
    default: defaults,
    create: generate_selector,
    update: keep_generated,
    validate,
    validate_update,
    ..PLAIN
};

fn defaults(job: &mut Value) {
    let spec = object_mut(job, "spec");
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let with_policy = spec.get("podFailurePolicy").is_some();
    let replacement = if with_policy {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default(spec, "podReplacementPolicy", replacement);
    default_template(spec);
    let labels = spec.pointer("/template/metadata/labels").cloned();
    if let Some(labels) = labels {
        default(object_mut(job, "metadata"), "labels", labels);
    }
}

/// A job's pods are known by the job's uid, unless its author chose a selector.
fn generate_selector(job: &mut Value) {
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    let spec = object_mut(job, "spec");
    if flag(spec, "manualSelector") {
        return;
    }
    let meta = object_mut(object_mut(spec, "template"), "metadata");
    let labels = object_mut(meta, "labels");
    for (key, value) in [
        (CONTROLLER_UID, &uid),
        (OLD_CONTROLLER_UID, &uid),
        (JOB_NAME, &name),
        (OLD_JOB_NAME, &name),
    ] {
        default(labels, key, value.clone());
    }
    default(spec, "selector", json!({}));
    let match_labels = object_mut(object_mut(spec, "selector"), "matchLabels");
    default(match_labels, CONTROLLER_UID, uid);
}

/// A file that is applied or replaced again does not know what was generated.
fn keep_generated(new: &mut Value, old: &Value) {
    if flag(&old["spec"], "manualSelector") {
        return;
    }
    let labels = old["spec"].pointer("/template/metadata/labels").cloned();
    let spec = object_mut(new, "spec");
    if let Some(selector) = old["spec"].get("selector") {
        default(spec, "selector", selector.clone());
    }
    let meta = object_mut(object_mut(spec, "template"), "metadata");
    for key in [CONTROLLER_UID, OLD_CONTROLLER_UID, JOB_NAME, OLD_JOB_NAME] {
        if let Some(value) = labels.as_ref().and_then(|labels| labels.get(key)) {
            default(object_mut(meta, "labels"), key, value.clone());
        }
    }
}

fn validate(job: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &job["spec"];
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ] {
        not_negative(spec, field, &path, errors);
    }
    let modes = ["Indexed", "NonIndexed"];
    choice(spec, "completionMode", &modes, &path, errors);
    if text(spec, "completionMode") == "Indexed" && int(spec, "completions").is_none() {
        let detail = "when completion mode is Indexed";
        errors.required(&path.child("completions"), detail);
    }
    validate_selector(spec, "job", &path, errors);
    let template = path.child("template");
    pod::validate_template(&spec["template"], &template, errors);
    if text(&spec["template"]["spec"], "restartPolicy") == "Always" {
        errors.required(
            &template.child("spec").child("restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        );
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["selector", "template", "completionMode"] {
        immutable(new, old, field, errors);
    }
    // The number of an indexed job may change together with its parallelism.
    if text(&new["spec"], "completionMode") != "Indexed" {
        immutable(new, old, "completions", errors);
    }
}
