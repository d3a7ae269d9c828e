//! What is wrong with one field, worded as `k8s.io/apimachinery`'s
//! `field.Error` words it: kubectl prints these lines as they are.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kinds of field errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CauseReason {
    FieldValueRequired,
    FieldValueInvalid,
    FieldValueDuplicate,
    FieldValueNotSupported,
    FieldValueForbidden,
    FieldValueNotFound,
    FieldValueTooLong,
    FieldValueTooMany,
    FieldValueTypeInvalid,
    FieldManagerConflict,
    NamespaceTerminating,
    DisruptionBudget,
    UnexpectedServerResponse,
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub reason: CauseReason,
    /// Kind of error, the offending value and what would be right.
    pub message: String,
    /// Path of the field, e.g. `spec.ports[0].port`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    pub fn new(reason: CauseReason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }

    /// `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = with_detail("Required value".to_owned(), detail);
        Self::new(CauseReason::FieldValueRequired, field, message)
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", value.into()), detail);
        Self::new(CauseReason::FieldValueInvalid, field, message)
    }

    pub fn type_invalid(field: impl Into<String>, value: impl Into<Value>, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", value.into()), detail);
        Self::new(CauseReason::FieldValueTypeInvalid, field, message)
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Duplicate value: {}", value.into());
        Self::new(CauseReason::FieldValueDuplicate, field, message)
    }

    pub fn not_supported(
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let list: Vec<_> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            value.into(),
            list.join(", ")
        );
        Self::new(CauseReason::FieldValueNotSupported, field, message)
    }

    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let message = format!("Not found: {}", value.into());
        Self::new(CauseReason::FieldValueNotFound, field, message)
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        let message = with_detail("Forbidden".to_owned(), detail);
        Self::new(CauseReason::FieldValueForbidden, field, message)
    }

    /// `max` in bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self::new(CauseReason::FieldValueTooLong, field, message)
    }

    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let message = format!("Too many: {actual}: must have at most {max} items");
        Self::new(CauseReason::FieldValueTooMany, field, message)
    }
}

fn with_detail(message: String, detail: &str) -> String {
    if detail.is_empty() {
        message
    } else {
        format!("{message}: {detail}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}
