//! Ordinary writes: the writer owns what it changed.

use serde_json::Value;

use super::super::Writer;
use super::super::typed::compare;
use super::{Manager, Managers, Operation, bare, without_system_fields};
use crate::kinds::schema::Type;

/// Sets the managers of `after`, which `writer` made of `before` (null for a
/// new object).
///
/// A writer may change the list of managers itself: kubectl does, to move
/// fields from `kubectl-client-side-apply` to server-side apply.
pub(in crate::patch) fn track(
    before: &Value,
    after: &mut Value,
    type_: &Type,
    api_version: &str,
    writer: &Writer<'_>,
) {
    let mut managers = Managers::of(after);
    if managers.0.is_empty() && !is_reset(after) {
        managers = Managers::of(before);
    }
    let difference = compare(&bare(before), &bare(after), type_);
    let changed = without_system_fields(difference.changed());
    let removed = without_system_fields(difference.removed);
    if changed.is_empty() && removed.is_empty() {
        return managers.store(after);
    }
    let me = Manager::of(writer, Operation::Update, api_version);
    let mut mine = managers.find(&me).cloned().unwrap_or_else(|| me.clone());
    for other in &mut managers.0 {
        other.fields = other.fields.difference(&changed).difference(&removed);
    }
    let fields = mine.fields.difference(&removed).union(&changed);
    if fields != mine.fields {
        mine.time = me.time;
    }
    mine.fields = fields;
    managers.set(mine);
    managers.store(after);
}

/// `managedFields: [{}]` asks to forget all managers.
fn is_reset(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.is_some_and(|e| e.len() == 1 && e[0].as_object().is_some_and(|o| o.is_empty()))
}
