//! Query parameters.

use std::str::FromStr;

use axum::extract::Query as Parsed;
use http::Uri;

use crate::Status;
use crate::kinds::{FieldValidation, KindSpec};
use crate::registry::{ListOptions, WriteOptions};
use crate::selector::Selector;
use crate::table::Include;

/// The parameters of one request, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(uri: &Uri) -> Result<Self, Status> {
        Parsed::try_from_uri(uri)
            .map(|Parsed(pairs)| Self(pairs))
            .map_err(|error| Status::bad_request(error.to_string()))
    }

    /// The first value; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// As Go parses booleans; a name alone is true.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Status> {
        match self.all(name).next() {
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| wrong(name, text, "a number")),
        }
    }

    pub(super) fn selector(&self, spec: &KindSpec) -> Result<Selector, Status> {
        Selector::parse(spec, self.get("labelSelector"), self.get("fieldSelector"))
    }

    pub(super) fn list(&self, spec: &KindSpec) -> Result<ListOptions, Status> {
        let token = self.get("continue");
        let matching = self.get("resourceVersionMatch");
        let revision = self.number("resourceVersion")?.unwrap_or(0);
        if !token.is_empty() && revision != 0 {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(ListOptions {
            selector: self.selector(spec)?,
            limit: self.number("limit")?.unwrap_or(0),
            token: (!token.is_empty()).then(|| token.to_owned()),
            revision,
            exact: match matching {
                "" | "NotOlderThan" => false,
                "Exact" => true,
                other => {
                    return Err(wrong(
                        "resourceVersionMatch",
                        other,
                        "Exact or NotOlderThan",
                    ));
                }
            },
        })
    }

    /// `agent`: the User-Agent, whose name stands in for a missing field manager.
    pub(super) fn write(&self, agent: &str) -> Result<WriteOptions, Status> {
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            field_validation: match self.get("fieldValidation") {
                "" | "Warn" => FieldValidation::Warn,
                "Ignore" => FieldValidation::Ignore,
                "Strict" => FieldValidation::Strict,
                other => return Err(wrong("fieldValidation", other, "Ignore, Warn or Strict")),
            },
            manager: match self.get("fieldManager") {
                "" => agent.split('/').next().unwrap_or(agent).to_owned(),
                name => name.to_owned(),
            },
            subresource: "",
        })
    }

    pub(super) fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(wrong("dryRun", other, "All")),
        }
    }

    pub(super) fn include(&self) -> Result<Include, Status> {
        match self.get("includeObject") {
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            "None" => Ok(Include::None),
            other => Err(wrong("includeObject", other, "None, Metadata or Object")),
        }
    }
}

fn wrong(name: &str, value: &str, right: &str) -> Status {
    Status::bad_request(format!("query parameter {name}: {value:?} is not {right}"))
}
