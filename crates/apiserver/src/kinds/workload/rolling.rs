//! Numbers of a rolling update: pods, or a share of them.

use serde_json::Value;

use super::super::error::Errors;
use super::super::names;
use super::super::path::Path;

/// A number of zero or more, or a percentage. Missing is right.
pub(super) fn count_or_percent(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let path = path.child(field);
    match object.get(field) {
        Some(Value::String(text)) => errors.invalid_all(&path, text, names::percent(text)),
        Some(Value::Number(number)) if number.as_i64().is_some_and(|n| n < 0) => {
            let detail = "must be greater than or equal to 0";
            errors.invalid(&path, number.as_i64(), detail);
        }
        _ => {}
    }
}

/// A percentage of at most 100.
pub(super) fn at_most_all(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    if let Some(text) = object.get(field).and_then(Value::as_str)
        && text
            .trim_end_matches('%')
            .parse()
            .is_ok_and(|n: i64| n > 100)
    {
        errors.invalid(&path.child(field), text, "must not be greater than 100%");
    }
}

/// Whether the field says nothing or none.
pub(super) fn is_zero(object: &Value, field: &str) -> bool {
    match object.get(field) {
        None => true,
        Some(Value::String(text)) => text
            .trim_end_matches('%')
            .trim_start_matches('0')
            .is_empty(),
        Some(number) => number == 0,
    }
}
