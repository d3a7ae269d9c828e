//! Which form of an answer a client accepts.

use http::{HeaderMap, header};

use crate::{Reason, Status};

/// Form of the objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `as=Table`, with its version.
    Table(&'static str),
    /// `as=PartialObjectMetadata` or `...List`.
    Partial,
    /// `as=APIGroupDiscoveryList`, with its version.
    Discovery(&'static str),
}

/// The first form in the `Accept` header that the server has. JSON only: who
/// asks for YAML gets JSON under that name, which is YAML as well.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            if range.trim().is_empty() {
                continue;
            }
            any = true;
            if let Some(form) = of_range(range) {
                return Ok(form);
            }
        }
    }
    if any {
        return Err(Status::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, \
             application/json;stream=watch, application/yaml",
        ));
    }
    Ok(Form::Whole)
}

fn of_range(range: &str) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    if !matches!(
        kind,
        "application/json" | "application/yaml" | "application/*" | "*/*"
    ) {
        return None;
    }
    let (mut form, mut version, mut group) = ("", "", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => form = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    match (form, group) {
        ("", _) => Some(Form::Whole),
        ("Table", "meta.k8s.io") => match version {
            "v1" => Some(Form::Table("v1")),
            "v1beta1" => Some(Form::Table("v1beta1")),
            _ => None,
        },
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => {
            Some(Form::Partial)
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => match version {
            "v2" => Some(Form::Discovery("v2")),
            "v2beta1" => Some(Form::Discovery("v2beta1")),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_we_have() {
        let cases = [
            ("application/json", Ok(Form::Whole)),
            ("*/*", Ok(Form::Whole)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Ok(Form::Table("v1")),
            ),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                Ok(Form::Whole),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                Ok(Form::Discovery("v2")),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok(Form::Partial),
            ),
            ("application/cbor", Err(Reason::NotAcceptable)),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(form(&headers).map_err(|it| it.reason), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Ok(Form::Whole));
    }
}
