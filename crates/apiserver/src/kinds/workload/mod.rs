//! Kinds that make pods.

mod daemon_set;
mod deployment;
mod job;
mod replica_set;
mod rolling;
mod stateful_set;

use serde_json::Value;

use super::error::Errors;
use super::get::text;
use super::labels;
use super::metadata::IMMUTABLE;
use super::path::Path;
use super::pod;

pub(super) use daemon_set::RULES as DAEMON_SET;
pub(super) use deployment::RULES as DEPLOYMENT;
pub(super) use job::RULES as JOB;
pub(super) use replica_set::RULES as REPLICA_SET;
pub(super) use stateful_set::RULES as STATEFUL_SET;

/// Fills in the pod template of a workload's spec.
fn default_template(spec: &mut Value) {
    if let Some(template) = spec.get_mut("template") {
        pod::default_template(template);
    }
}

/// The selector is there, selects something, and selects the template's pods.
/// `kind` is how the message names the kind.
fn validate_selector(spec: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let selector = spec.get("selector").unwrap_or(&Value::Null);
    let path_of = path.child("selector");
    if selector.is_null() {
        return errors.required(&path_of, "");
    }
    let before = errors.len();
    labels::validate_selector(selector, &path_of, errors);
    if labels::is_empty(selector) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.invalid(&path_of, selector.clone(), &detail);
    }
    let of_template = &spec["template"]["metadata"]["labels"];
    if errors.len() == before && !labels::matches(selector, of_template) {
        errors.invalid(
            &path.child("template").child("metadata").child("labels"),
            of_template.clone(),
            "`selector` does not match template `labels`",
        );
    }
}

/// The template of pods that are to run for ever.
fn validate_template(spec: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("template");
    let template = &spec["template"];
    pod::validate_template(template, &path, errors);
    let policy = text(&template["spec"], "restartPolicy");
    let path = path.child("spec");
    if !matches!(policy, "" | "Always") {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if template["spec"].get("activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &detail);
    }
}

/// A field of the spec that stays as it was made.
fn immutable(new: &Value, old: &Value, field: &str, errors: &mut Errors) {
    let (new, old) = (&new["spec"], &old["spec"]);
    if new.get(field) != old.get(field) {
        let value = new.get(field).cloned().unwrap_or_default();
        errors.invalid(&Path::root("spec").child(field), value, IMMUTABLE);
    }
}

#[cfg(test)]
mod tests;
