//! Server-side apply.

use serde_json::{Map, Value};

use super::super::Writer;
use super::super::fields::FieldSet;
use super::super::typed::{ItemError, check_items, compare, fields_of, overlay, remove};
use super::conflict::{self, Conflict};
use super::last_applied;
use super::{Manager, Managers, Operation, bare, without_system_fields};
use crate::Status;
use crate::kinds::schema::Type;

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::patch) enum ApplyError {
    #[error(transparent)]
    Items(#[from] ItemError),
    #[error("conflicts with other managers")]
    Conflicts(Vec<Conflict>),
}

/// What is applied, by whom.
#[derive(Clone, Copy, Debug)]
pub(in crate::patch) struct Apply<'a> {
    pub(in crate::patch) config: &'a Value,
    pub(in crate::patch) type_: &'a Type,
    pub(in crate::patch) api_version: &'a str,
    pub(in crate::patch) writer: Writer<'a>,
    /// Take fields from their owners.
    pub(in crate::patch) force: bool,
}

impl ApplyError {
    /// The answer; `what` names the object in messages.
    pub(in crate::patch) fn into_status(self, what: &str) -> Status {
        match self {
            Self::Items(error) => Status::bad_request(format!(
                "failed to create typed patch object ({what}): {error}"
            )),
            Self::Conflicts(conflicts) => conflict::status(conflicts),
        }
    }
}

/// Applies a configuration to `live` (null if there is no object yet).
///
/// What the manager applied before and does not apply now goes, unless others
/// own it as well. `normalize` writes values as the API stores them, so that
/// `1` and `"1"` of an amount are no conflict.
///
/// # Errors
/// If items of a list are not told apart, or (without `force`) if a field has
/// another owner and another value.
pub(in crate::patch) fn apply(
    live: &Value,
    apply: Apply<'_>,
    normalize: impl Fn(&mut Value),
) -> Result<Value, ApplyError> {
    let Apply { config, type_, .. } = apply;
    check_items(config, type_)?;
    let mut managers = Managers::of(live);
    let before = bare(live);
    let me = Manager::of(&apply.writer, Operation::Apply, apply.api_version);
    let last = managers.find(&me).cloned();
    let applied = Manager {
        fields: without_system_fields(fields_of(config, type_)),
        ..me
    };
    managers.set(applied.clone());
    let merged = overlay(&before, config, type_);
    let mut after = match &last {
        Some(last) if !last.fields.is_empty() => prune(merged, &managers, &last.fields, type_),
        _ => merged,
    };
    normalize(&mut after);
    let take = |managers: &mut Managers, force| {
        take_over(&before, &after, managers, &applied, type_, force)
    };
    match take(&mut managers, apply.force) {
        Err(ApplyError::Conflicts(conflicts))
            if last_applied::allows(&conflicts, &before, apply) =>
        {
            take(&mut managers, true)?;
        }
        outcome => outcome?,
    }
    last_applied::refresh(&mut after, apply);
    let unchanged = after == before && last.as_ref().is_some_and(|l| l.fields == applied.fields);
    if let (true, Some(last)) = (unchanged, last) {
        managers.set(last);
    }
    managers.store(&mut after);
    Ok(after)
}

/// Takes the changed fields from the other managers, or fails if they disagree.
fn take_over(
    before: &Value,
    after: &Value,
    managers: &mut Managers,
    me: &Manager,
    type_: &Type,
    force: bool,
) -> Result<(), ApplyError> {
    let difference = compare(before, after, type_);
    // A zero value that is not written is a change all the same.
    let zeroed = difference.removed.intersection(&me.fields);
    let changed = difference.changed().union(&zeroed);
    let others = || managers.0.iter().filter(|manager| !manager.is(me));
    let conflicts: Vec<Conflict> = others()
        .filter_map(|manager| {
            let fields = manager.fields.intersection(&changed);
            (!fields.is_empty()).then(|| Conflict::new(manager, fields))
        })
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    for other in managers.0.iter_mut().filter(|manager| !manager.is(me)) {
        let left = other.fields.difference(&changed);
        other.fields = left.difference(&difference.removed);
    }
    Ok(())
}

/// Takes out of `merged` what this manager owned by its `last` apply and nobody
/// owns now.
fn prune(merged: Value, managers: &Managers, last: &FieldSet, type_: &Type) -> Value {
    let all = |value: &Value| fields_of(value, type_).with_parents(type_);
    let owned = managers.0.iter().fold(FieldSet::default(), |set, manager| {
        set.union(&manager.fields)
    });
    let without = |gone: &FieldSet, kept: &FieldSet| {
        remove(&merged, gone, kept, type_).unwrap_or_else(|| Value::Object(Map::new()))
    };
    let last = last.with_parents(type_);
    let everything = all(&merged);
    // First as if all of it went, ...
    let least = all(&without(&last, &FieldSet::default()));
    // ... then what anybody owns comes back, ...
    let unowned = everything
        .difference(&least)
        .difference(&owned.with_parents(type_));
    let kept = all(&without(&unowned, &owned));
    // ... and what was not the manager's own but only stood inside.
    without(&everything.difference(&kept).intersection(&last), &owned)
}
