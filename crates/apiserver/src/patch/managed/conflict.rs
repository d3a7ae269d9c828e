//! Conflicts of an apply with other managers.

use crate::status::Reason;
use crate::{Cause, CauseReason, Status};

use super::super::fields::FieldSet;
use super::{Manager, Operation};

/// Fields of another manager that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::patch) struct Conflict {
    manager: String,
    fields: FieldSet,
}

impl Conflict {
    pub(super) fn new(manager: &Manager, fields: FieldSet) -> Self {
        let mut name = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            name.push_str(&format!(" with subresource {:?}", manager.subresource));
        }
        if manager.operation == Operation::Update {
            name.push_str(&format!(" using {}", manager.api_version));
        }
        Self {
            manager: name,
            fields,
        }
    }

    pub(super) fn fields(&self) -> &FieldSet {
        &self.fields
    }
}

/// The 409 for these conflicts, with a cause for each field.
pub(in crate::patch) fn status(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    let all: Vec<(&str, String)> = conflicts
        .iter()
        .flat_map(|conflict| {
            let paths = conflict.fields.paths().into_iter();
            paths.map(|path| (conflict.manager.as_str(), path.to_string()))
        })
        .collect();
    let message = match &all[..] {
        [(manager, path)] => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
        }
        _ => {
            let mut lines = Vec::new();
            for conflict in &conflicts {
                lines.push(format!("conflicts with {}:", conflict.manager));
                lines.extend(
                    conflict
                        .fields
                        .paths()
                        .iter()
                        .map(|path| format!("- {path}")),
                );
            }
            format!(
                "Apply failed with {} conflicts: {}",
                all.len(),
                lines.join("\n")
            )
        }
    };
    let status = Status::new(Reason::Conflict, message);
    all.into_iter().fold(status, |status, (manager, path)| {
        status.with_cause(Cause::new(
            CauseReason::FieldManagerConflict,
            path,
            format!("conflict with {manager}"),
        ))
    })
}
