//! From `kubectl apply` to `kubectl apply --server-side` and back.
//!
//! The former keeps what it applied in an annotation, and owns its fields as an
//! ordinary writer. The latter, by its default name, may take these fields
//! over, and keeps the annotation up to date.

use serde_json::Value;

use super::super::typed::{compare, fields_of};
use super::apply::Apply;
use super::conflict::Conflict;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// kubectl's name, unless the user chose another.
const KUBECTL: &str = "kubectl";

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}

/// Whether all conflicts are about fields that the last `kubectl apply` set and
/// nobody has changed since.
pub(super) fn allows(conflicts: &[Conflict], live: &Value, apply: Apply<'_>) -> bool {
    if apply.writer.manager != KUBECTL {
        return false;
    }
    let Some(last) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return false;
    };
    let difference = compare(live, &last, apply.type_);
    let unchanged = fields_of(&last, apply.type_).difference(&difference.changed());
    conflicts
        .iter()
        .all(|conflict| conflict.fields().difference(&unchanged).is_empty())
}

/// Rewrites the annotation, if the object has it.
pub(super) fn refresh(object: &mut Value, apply: Apply<'_>) {
    if apply.writer.manager != KUBECTL || annotation(object).is_none() {
        return;
    }
    let mut config = apply.config.clone();
    if let Some(annotations) = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
    object["metadata"]["annotations"][ANNOTATION] = Value::from(format!("{config}\n"));
}
