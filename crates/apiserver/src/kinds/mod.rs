//! The kinds that are served, and what is done to their objects on the way in.
//!
//! All of it is functions from values to values: types ([`schema`], `decode`),
//! then the defaults and the rules of each kind (a file each, by group), with
//! the messages of the Kubernetes API.

mod decode;
mod error;
mod get;
mod metadata;
mod names;
mod path;
mod rules;
pub mod schema;
mod spec;
mod table;
mod values;

use serde_json::Value;

use error::Errors;
use rules::Rules;

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
/// included: name, labels, annotations, finalizers, owner references). A kind
/// with a status subresource begins without the status that was sent; one with
/// a generation begins at 1.
///
/// `metadata.name`, `namespace`, `uid` and `creationTimestamp` have been set by
/// the registry. Service addresses and ports are allocated after this, so they
/// may be missing.
///
/// # Errors
/// 400 for what cannot be decoded, 422 with causes for wrong values.
pub fn prepare_create(
    spec: &KindSpec,
    object: &mut Value,
    context: &mut Context,
) -> Result<(), Status> {
    decode(spec, object, context)?;
    if spec.status {
        get::set(object, "status", None);
    }
    set_defaults(spec, object);
    let meta = get::object_mut(object, "metadata");
    get::set(meta, "generation", spec.generation.then(|| Value::from(1)));
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        get::set(meta, field, None);
    }
    let mut errors = Errors::default();
    validate(spec, object, &mut errors);
    refuse_if_any(spec, object, errors)
}

/// The same for a change of `current`: what the part leaves alone is taken from
/// `current`, immutable fields are checked, and `metadata.generation` counts a
/// change of anything but metadata and status.
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
    metadata::carry_over(object, current);
    match context.part {
        Part::Main if spec.status => {
            get::set(object, "status", current.get("status").cloned());
        }
        Part::Main => {}
        Part::Status => *object = with_status_of(spec, object, current),
    }
    set_defaults(spec, object);
    if spec.generation && content(object) != content(current) {
        let before = get::int(&current["metadata"], "generation").unwrap_or_default();
        object["metadata"]["generation"] = Value::from(before + 1);
    }
    let mut errors = Errors::default();
    metadata::validate_update(object, current, &mut errors);
    validate(spec, object, &mut errors);
    if let (Rules::Builtin(rules), true) = (spec.rules, errors.is_empty()) {
        (rules.validate_update)(object, current, &mut errors);
    }
    refuse_if_any(spec, object, errors)
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

/// `current` with the status of `new`. Of the metadata a status write may change
/// all but labels and owners; of a custom resource, nothing.
fn with_status_of(spec: &KindSpec, new: &Value, current: &Value) -> Value {
    let mut object = current.clone();
    get::set(&mut object, "status", new.get("status").cloned());
    let kept: &[&str] = match spec.rules {
        Rules::Builtin(_) => &["labels", "ownerReferences"],
        Rules::Custom => &["labels", "ownerReferences", "annotations", "finalizers"],
    };
    let mut meta = new["metadata"].clone();
    for field in kept {
        get::set(&mut meta, field, current["metadata"].get(field).cloned());
    }
    object["metadata"] = meta;
    object
}

/// What a generation counts the changes of.
fn content(object: &Value) -> Vec<(&String, &Value)> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(field, _)| !matches!(field.as_str(), "metadata" | "status"))
        .collect()
}
