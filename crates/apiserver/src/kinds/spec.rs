//! What the API serves under one group, version and plural.

use std::sync::Arc;

use super::rules::Rules;
use super::schema::Object;

/// Where the scale subresource of a kind finds its numbers. Paths are dotted,
/// without a leading dot: `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A serialised selector (string) or a LabelSelector.
    pub selector: Option<String>,
}

/// A column of `kubectl get` that a CustomResourceDefinition declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrinterColumn {
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    pub type_: String,
    pub format: String,
    pub description: String,
    /// Columns above 0 are shown with `-o wide` only.
    pub priority: i64,
    /// JSONPath of the value, e.g. `.spec.replicas`.
    pub json_path: String,
}

/// One kind in one version: a row of the table of kinds.
#[derive(Clone, Debug, Default)]
pub struct KindSpec {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    /// E.g. `all`.
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether there is a `/status` subresource: then ordinary writes keep the
    /// status, and status writes change nothing else.
    pub status: bool,
    pub scale: Option<ScalePaths>,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub generation: bool,
    /// What its objects look like.
    pub schema: Arc<Object>,
    /// Columns of a custom resource; empty for the built-in kinds.
    pub columns: Vec<PrinterColumn>,
    pub(super) rules: Rules,
}

impl KindSpec {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether a CustomResourceDefinition made it.
    pub fn is_custom(&self) -> bool {
        matches!(self.rules, Rules::Custom)
    }
}
