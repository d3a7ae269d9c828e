//! Questions that are answered and not stored: may I, and who am I. Who gets
//! this far is the administrator and may do everything.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::path::Target;
use super::respond::{self, Response};
use super::{body, protobuf};
use crate::Status;

/// The groups that have nothing but reviews.
pub(super) const GROUPS: [(&str, &str); 2] = [
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
];

/// Plural and kind of the reviews of a group.
pub(super) fn served(group: &str, version: &str) -> &'static [(&'static str, &'static str)] {
    match (group, version) {
        ("authentication.k8s.io", "v1") => &[("selfsubjectreviews", "SelfSubjectReview")],
        ("authorization.k8s.io", "v1") => &[
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ],
        _ => &[],
    }
}

/// None if the request is not about a review.
pub(super) fn answer(
    parts: &Parts,
    target: &Target,
    bytes: &[u8],
) -> Option<Result<Response, Status>> {
    let (_, kind) = served(&target.group, &target.version)
        .iter()
        .find(|(plural, _)| *plural == target.plural)?;
    if parts.method != Method::POST || target.name.is_some() {
        return Some(Err(Status::method_not_allowed()));
    }
    // The answer is the same whatever was asked, so what kubectl asks in protobuf
    // needs no reading.
    let review = match body::media_type(&parts.headers) {
        protobuf::MEDIA_TYPE => Ok(json!({})),
        _ => body::object(&parts.headers, bytes),
    };
    Some(review.map(|mut review| {
        if !review.is_object() {
            review = json!({});
        }
        review["kind"] = json!(kind);
        review["apiVersion"] = json!(format!("{}/{}", target.group, target.version));
        review["status"] = verdict(kind);
        respond::json(StatusCode::CREATED, &review)
    }))
}

fn verdict(kind: &str) -> Value {
    match kind {
        "SelfSubjectReview" => json!({ "userInfo": {
            "username": "kubernetes-admin",
            "groups": ["system:masters", "system:authenticated"],
        } }),
        "SelfSubjectRulesReview" => json!({
            "incomplete": false,
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        }),
        _ => json!({ "allowed": true }),
    }
}
