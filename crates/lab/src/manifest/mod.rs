//! Manifests: files of objects, read and checked before anything is done with
//! them.
//!
//! Every message begins with FILE:LINE, so that editors and people find the place.

mod check;
mod files;
mod kinds;
mod object;
mod tree;

use std::fmt;

pub use check::{Manifests, check, explain, identify};
pub use files::{Source, read_all};
pub use kinds::{Kinds, Resource, defined_by};
pub use object::Object;

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    pub file: String,
    pub line: Option<u64>,
    pub message: String,
}

impl ManifestError {
    pub(crate) fn new(
        file: impl fmt::Display,
        line: Option<u64>,
        message: impl fmt::Display,
    ) -> Self {
        Self {
            file: file.to_string(),
            line,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}
