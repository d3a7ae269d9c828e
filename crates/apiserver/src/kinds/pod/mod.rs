//! Pods, and the templates of pods in other kinds.

mod admit;
mod container;
mod defaults;
mod env;
mod probe;
mod scheduling;
mod spec;
mod update;
mod volume;

use serde_json::Value;

use super::error::Errors;
use super::labels;
use super::metadata;
use super::path::Path;
use super::rules::{Builtin, PLAIN};

pub(super) use container::{PROTOCOLS, port_number, port_or_name};
pub(super) use defaults::template as default_template;
pub(super) use probe::not_negative;
pub(super) use spec::choice;

pub(super) static RULES: Builtin = Builtin {
    default: defaults::pod,
    create: admit::pod,
    update: update::keep,
    validate: |pod, errors| {
        spec::validate(&pod["spec"], &Path::root("spec"), spec::Of::Pod, errors)
    },
    validate_update: update::validate,
    ..PLAIN
};

/// Checks a PodTemplateSpec.
pub(super) fn validate_template(template: &Value, path: &Path, errors: &mut Errors) {
    let meta = path.child("metadata");
    labels::validate(&template["metadata"], "labels", &meta, errors);
    metadata::annotations(&template["metadata"], &meta, errors);
    let spec = path.child("spec");
    spec::validate(&template["spec"], &spec, spec::Of::Template, errors);
}

#[cfg(test)]
mod tests;
