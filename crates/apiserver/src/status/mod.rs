//! The `meta/v1` Status: what the API answers when it does not answer with an
//! object. kubectl and kube-rs decide by `reason`, people read `message`.

mod cause;

use serde::{Deserialize, Serialize};

pub use cause::{Cause, CauseReason};

/// Machine-readable reason of a failure; each has one HTTP code
/// (`k8s.io/apimachinery/pkg/api/errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    /// The requested resourceVersion is older than the event log.
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with this reason.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// What a failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind for validation errors, the plural resource name for all others;
    /// this is how Kubernetes fills it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// A failed request. Serialises as the API object `v1 Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
#[serde(from = "Wire", into = "Wire")]
pub struct Status {
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A failure without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            details: None,
        }
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The field errors of an [`Reason::Invalid`] answer; empty for others.
    pub fn causes(&self) -> &[Cause] {
        self.details.as_ref().map_or(&[], |details| &details.causes)
    }

    /// `resource` is the plural name, e.g. `pods`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::about(Reason::NotFound, group, resource, name, "not found")
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::about(
            Reason::AlreadyExists,
            group,
            resource,
            name,
            "already exists",
        )
    }

    /// The object changed since it was read.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(group, resource)
        );
        Self::new(Reason::Conflict, message).with_object(group, resource, name)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!(
                "{} \"{name}\" is forbidden: {why}",
                qualified(group, resource)
            )
        };
        Self::new(Reason::Forbidden, message).with_object(group, resource, name)
    }

    /// A well-formed object with wrong values. `kind` is the kind, e.g. `Pod`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let what = match causes.as_slice() {
            [one] => one.to_string(),
            many => {
                let all: Vec<_> = many.iter().map(Cause::to_string).collect();
                format!("[{}]", all.join(", "))
            }
        };
        let message = format!("{} \"{name}\" is invalid: {what}", qualified(group, kind));
        let mut status = Self::new(Reason::Invalid, message).with_object(group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(
            Reason::InternalError,
            format!("Internal error occurred: {error}"),
        )
    }

    /// The answer to a path that no resource is served at.
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(
            Reason::NotFound,
            "the server could not find the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// The resourceVersion asked for is no longer in the event log: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    fn about(reason: Reason, group: &str, resource: &str, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" {what}", qualified(group, resource));
        Self::new(reason, message).with_object(group, resource, name)
    }

    /// Names the object that the failure is about.
    #[must_use]
    pub fn with_object(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        self
    }

    /// Adds a cause to the details.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }
}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

/// The object as it stands on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    status: String,
    #[serde(default)]
    message: String,
    reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Box<Details>>,
    #[serde(default)]
    code: u16,
}

impl From<Status> for Wire {
    fn from(status: Status) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            code: status.code(),
            message: status.message,
            reason: status.reason,
            details: status.details,
        }
    }
}

impl From<Wire> for Status {
    fn from(wire: Wire) -> Self {
        Self {
            reason: wire.reason,
            message: wire.message,
            details: wire.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let cases = [
            (
                Status::not_found("apps", "deployments", "web"),
                "deployments.apps \"web\" not found",
            ),
            (
                Status::already_exists("", "pods", "a"),
                "pods \"a\" already exists",
            ),
            (
                Status::invalid("", "Service", "s", vec![Cause::required("spec.ports", "")]),
                "Service \"s\" is invalid: spec.ports: Required value",
            ),
        ];
        for (status, message) in cases {
            assert_eq!(status.to_string(), message);
        }
    }

    #[test]
    fn wire_form_round_trips() {
        let status = Status::invalid(
            "apps",
            "Deployment",
            "web",
            vec![Cause::invalid(
                "spec.replicas",
                -1,
                "must be greater than or equal to 0",
            )],
        );
        let wire = serde_json::to_value(&status).unwrap();
        assert_eq!(wire["kind"], "Status");
        assert_eq!(wire["code"], 422);
        assert_eq!(wire["reason"], "Invalid");
        assert_eq!(wire["details"]["causes"][0]["reason"], "FieldValueInvalid");
        assert_eq!(
            wire["details"]["causes"][0]["message"],
            "Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(serde_json::from_value::<Status>(wire).unwrap(), status);
    }
}
