//! Collects what is wrong with an object, field by field.

use serde_json::Value;

use super::path::Path;
use crate::Cause;

/// The wrong fields of one object, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors(Vec<Cause>);

impl Errors {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many were found so far; two readings tell whether a step found any.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_causes(self) -> Vec<Cause> {
        self.0
    }

    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.0.push(Cause::required(path.to_string(), detail));
    }

    pub(crate) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.0.push(Cause::forbidden(path.to_string(), detail));
    }

    /// The value is longer than `limit` bytes.
    pub(crate) fn too_long(&mut self, path: &Path, limit: usize) {
        self.0.push(Cause::too_long(path.to_string(), limit));
    }

    /// The list has `actual` items, more than `limit`.
    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, limit: usize) {
        self.0
            .push(Cause::too_many(path.to_string(), actual, limit));
    }

    pub(crate) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.0.push(Cause::invalid(path.to_string(), value, detail));
    }

    /// One error for each message of a syntax check.
    pub(crate) fn invalid_all(&mut self, path: &Path, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, &message);
        }
    }

    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(Cause::duplicate(path.to_string(), value));
    }

    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(Cause::not_found(path.to_string(), value));
    }

    /// The value is none of `supported`.
    pub(crate) fn not_supported(
        &mut self,
        path: &Path,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        self.0
            .push(Cause::not_supported(path.to_string(), value, supported));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_have_the_shape_of_the_api() {
        let port = Path::root("spec").child("ports").index(0).child("port");
        let mut errors = Errors::default();
        errors.invalid(&port, 70000, "must be between 1 and 65535, inclusive");
        errors.required(&Path::root("spec").child("selector"), "");
        errors.not_supported(&port, "QUIC", &["SCTP", "TCP", "UDP"]);
        errors.duplicate(&port, json!({"port": 80}));
        let text: Vec<String> = errors
            .into_causes()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            text,
            [
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.selector: Required value",
                r#"spec.ports[0].port: Unsupported value: "QUIC": supported values: "SCTP", "TCP", "UDP""#,
                r#"spec.ports[0].port: Duplicate value: {"port":80}"#,
            ]
        );
    }
}
