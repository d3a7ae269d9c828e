//! The kinds that are served, and what is done to their objects on the way in.
//!
//! All of it is functions from values to values: types ([`schema`], `decode`),
//! then the defaults and the rules of each kind (a file each, by group), with
//! the messages of the Kubernetes API.

mod address;
mod cluster;
mod config;
mod decode;
mod defaults;
mod error;
mod get;
mod labels;
mod metadata;
mod names;
mod network;
mod path;
mod pod;
mod rules;
pub mod schema;
mod service;
mod spec;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod values;
mod workload;

use serde_json::Value;

use error::Errors;
use rules::Rules;

pub(crate) use names::dns_1035_label;
pub use spec::{KindSpec, PrinterColumn, ScalePaths};
pub use table::builtin;

use crate::Status;

/// What to do with fields that the kind does not have
/// (query parameter `fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them, with a warning each.
    #[default]
    Warn,
    /// Refuse the object with 400.
    Strict,
}

/// Which part of the object a write is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    #[default]
    Main,
    /// `/status`: nothing else (but metadata that status may change) is taken
    /// from the request.
    Status,
}

/// What a preparation needs beside the object, and the warnings it leaves.
#[derive(Debug, Default)]
pub struct Context {
    pub field_validation: FieldValidation,
    pub part: Part,
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
}

/// Prunes unknown fields, checks types, sets defaults and validates (metadata
/// included: name, labels, annotations, finalizers, owner references).
///
/// `metadata.name`, `namespace`, `uid`, `creationTimestamp` and `generation`
/// have been set by the registry. Service addresses and ports are allocated
/// after this, so they may be missing.
///
/// # Errors
/// 400 for what cannot be decoded, 422 with causes for wrong values.
pub fn prepare_create(
    spec: &KindSpec,
    object: &mut Value,
    context: &mut Context,
) -> Result<(), Status> {
    decode(spec, object, context)?;
    set_defaults(spec, object);
    if let Rules::Builtin(rules) = spec.rules {
        (rules.create)(object);
    }
    let mut errors = Errors::default();
    validate(spec, object, &mut errors);
    refuse_if_any(spec, object, errors)
}

/// The same for a change of `current`; immutable fields are checked as well.
/// The registry has already taken from `current` what the request leaves alone.
///
/// # Errors
/// As [`prepare_create`].
pub fn prepare_update(
    spec: &KindSpec,
    object: &mut Value,
    current: &Value,
    context: &mut Context,
) -> Result<(), Status> {
    decode(spec, object, context)?;
    set_defaults(spec, object);
    if let Rules::Builtin(rules) = spec.rules {
        (rules.update)(object, current);
    }
    let mut errors = Errors::default();
    metadata::validate_update(object, current, &mut errors);
    validate(spec, object, &mut errors);
    if let Rules::Builtin(rules) = spec.rules {
        (rules.validate_update)(object, current, &mut errors);
    }
    refuse_if_any(spec, object, errors)
}

/// Checks the types of what is applied, and drops nulls. All fields must be
/// known; zero values stay, for they may replace others.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_types(spec: &KindSpec, object: &mut Value) -> Result<(), String> {
    decode::check(spec, object)
}

/// Writes an object as it is stored: without unknown fields, nulls, and zero
/// values that say nothing. Values of the wrong type stay; [`prepare_update`]
/// refuses them.
pub(crate) fn normalize(spec: &KindSpec, object: &mut Value) {
    decode::normalize(spec, object);
}

fn decode(spec: &KindSpec, object: &mut Value, context: &mut Context) -> Result<(), Status> {
    decode::decode(
        spec,
        object,
        context.field_validation,
        &mut context.warnings,
    )
    .map_err(Status::bad_request)
}

fn set_defaults(spec: &KindSpec, object: &mut Value) {
    defaults::fill_object(object, &spec.schema);
    if let Rules::Builtin(rules) = spec.rules {
        (rules.default)(object);
    }
}

fn validate(spec: &KindSpec, object: &Value, errors: &mut Errors) {
    let name = match spec.rules {
        Rules::Builtin(rules) => rules.name,
        Rules::Custom => names::NameRule::Subdomain,
    };
    metadata::validate(object, spec.namespaced, name, errors);
    if let Rules::Builtin(rules) = spec.rules {
        (rules.validate)(object, errors);
    }
}

fn refuse_if_any(spec: &KindSpec, object: &Value, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = get::text(&object["metadata"], "name");
    Err(Status::invalid(
        &spec.group,
        &spec.kind,
        name,
        errors.into_causes(),
    ))
}
