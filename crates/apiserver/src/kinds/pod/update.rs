//! What may change in a Pod.

use serde_json::Value;

use super::super::error::Errors;
use super::super::get::{int, list, list_mut, set, text};
use super::super::path::Path;
use super::admit;

/// Beyond these, a pod's spec stays as it was made.
const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What admission gave to the pod stays when an update does not mention it:
/// a file that is applied again knows nothing of it.
pub(super) fn keep(new: &mut Value, old: &Value) {
    let (Some(new), Some(old)) = (new.get_mut("spec"), old.get("spec")) else {
        return;
    };
    for field in [
        "serviceAccountName",
        "serviceAccount",
        "priority",
        "preemptionPolicy",
        "nodeName",
    ] {
        if new.get(field).is_none() {
            set(new, field, old.get(field).cloned());
        }
    }
    admit::tolerations(new);
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    if new == old {
        return;
    }
    for field in ["containers", "initContainers"] {
        if list(new, field).len() != list(old, field).len() {
            return errors.forbidden(
                &path.child(field),
                "pod updates may not add or remove containers",
            );
        }
    }
    deadline(new, old, &path, errors);
    tolerations(new, old, &path, errors);
    let changed = changed_fields(&frozen(new, old), old);
    if !changed.is_empty() {
        let detail = format!(
            "pod updates may not change fields other than {MUTABLE}\nchanged: {}",
            changed.join(", ")
        );
        errors.forbidden(&path, &detail);
    }
}

/// The new spec with the old values where changes are allowed.
fn frozen(new: &Value, old: &Value) -> Value {
    let mut frozen = new.clone();
    for field in ["containers", "initContainers"] {
        let containers = list_mut(&mut frozen, field);
        for (container, old) in containers.zip(list(old, field)) {
            set(container, "image", old.get("image").cloned());
        }
    }
    // Ephemeral containers come through a subresource; gates only go away.
    for field in [
        "activeDeadlineSeconds",
        "tolerations",
        "schedulingGates",
        "ephemeralContainers",
    ] {
        set(&mut frozen, field, old.get(field).cloned());
    }
    // Binding a pod to a node is the scheduler's update.
    if text(old, "nodeName").is_empty() {
        set(&mut frozen, "nodeName", old.get("nodeName").cloned());
    }
    frozen
}

/// The fields of the spec that differ, for the message.
fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return Vec::new();
    };
    let mut fields: Vec<&String> = new.keys().chain(old.keys()).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
        .into_iter()
        .filter(|field| new.get(*field) != old.get(*field))
        .map(|field| format!("spec.{field}"))
        .collect()
}

/// A deadline may be set once, and then only come nearer.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("activeDeadlineSeconds");
    let field = "activeDeadlineSeconds";
    match (int(new, field), int(old, field)) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(
            &path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let plain = |toleration: &Value| {
        let mut toleration = toleration.clone();
        set(&mut toleration, "tolerationSeconds", None);
        toleration
    };
    let now: Vec<Value> = list(new, "tolerations").iter().map(plain).collect();
    if !list(old, "tolerations")
        .iter()
        .all(|old| now.contains(&plain(old)))
    {
        errors.forbidden(
            &path.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}
