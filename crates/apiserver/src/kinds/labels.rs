//! Labels and label selectors.

use serde_json::Value;

use super::error::Errors;
use super::get::{at, entries, list, text, texts};
use super::names;
use super::path::Path;

/// Checks a map of labels in `field` of `object`, which stands at `path`.
pub(super) fn validate(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let path = path.child(field);
    for (key, value) in entries(object, field) {
        errors.invalid_all(&path, key, names::label_key(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_all(&path, value, names::label_value(value));
    }
}

/// Checks a LabelSelector; null is right.
pub(super) fn validate_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    validate(selector, "matchLabels", path, errors);
    let path = path.child("matchExpressions");
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        validate_expression(expression, &path.index(index), errors);
    }
}

fn validate_expression(expression: &Value, path: &Path, errors: &mut Errors) {
    let values = texts(expression, "values");
    let values_path = path.child("values");
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => errors.required(
            &values_path,
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
            &values_path,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    let key = text(expression, "key");
    errors.invalid_all(&path.child("key"), key, names::label_key(key));
    for (index, value) in values.into_iter().enumerate() {
        errors.invalid_all(&values_path.index(index), value, names::label_value(value));
    }
}

/// Whether a selector selects by nothing: it matches all objects.
pub(super) fn is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none()
        && list(selector, "matchExpressions").is_empty()
}

/// Whether a selector matches the `labels` map.
pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    let value_of = |key: &str| at(labels, &[key]).as_str();
    entries(selector, "matchLabels").all(|(key, value)| value_of(key) == value.as_str())
        && list(selector, "matchExpressions").iter().all(|expression| {
            let value = value_of(text(expression, "key"));
            let values = texts(expression, "values");
            match text(expression, "operator") {
                "In" => value.is_some_and(|v| values.contains(&v)),
                "NotIn" => value.is_none_or(|v| !values.contains(&v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match() {
        let labels = json!({"app": "web", "tier": "front"});
        let expression = |operator: &str, key: &str, values: &[&str]| json!({"matchExpressions": [{"operator": operator, "key": key, "values": values}]});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchLabels": {"app": "web", "x": "y"}}), false),
            (expression("In", "app", &["db", "web"]), true),
            (expression("In", "x", &["y"]), false),
            (expression("NotIn", "app", &["web"]), false),
            (expression("NotIn", "x", &["y"]), true),
            (expression("Exists", "tier", &[]), true),
            (expression("DoesNotExist", "tier", &[]), false),
        ] {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn wrong_selectors() {
        for (selector, message) in [
            (
                json!({"matchExpressions": [{"operator": "In", "key": "a"}]}),
                "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                json!({"matchExpressions": [{"operator": "Exists", "key": "a", "values": ["x"]}]}),
                "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            (
                json!({"matchExpressions": [{"operator": "Like", "key": "a"}]}),
                "s.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
            ),
        ] {
            let mut errors = Errors::default();
            validate_selector(&selector, &Path::root("s"), &mut errors);
            assert_eq!(errors.into_causes()[0].to_string(), message);
        }
    }
}
