//! What each kind does beyond its fields: names, defaults, validation.

use serde_json::Value;

use super::error::Errors;
use super::names::NameRule;

/// Functions of a built-in kind; all are pure.
#[derive(Debug)]
pub(super) struct Builtin {
    /// What a name may look like.
    pub(super) name: NameRule,
    /// Fills in what is missing (after the defaults that the fields declare).
    pub(super) default: fn(&mut Value),
    /// Checks a whole object, on create and on update.
    pub(super) validate: fn(&Value, &mut Errors),
    /// Checks a change: `(new, old, errors)`.
    pub(super) validate_update: fn(&Value, &Value, &mut Errors),
}

/// Where a kind's rules come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Rules {
    Builtin(&'static Builtin),
    /// A custom resource: those of its metadata alone.
    #[default]
    Custom,
}

/// For kinds without defaults of their own.
pub(super) fn no_defaults(_: &mut Value) {}

/// For kinds whose fields need no more than their types.
pub(super) fn anything(_: &Value, _: &mut Errors) {}

/// For kinds where everything may change.
pub(super) fn any_change(_: &Value, _: &Value, _: &mut Errors) {}

/// Kinds whose rules are their fields' types and a DNS name.
pub(super) static PLAIN: Builtin = Builtin {
    name: NameRule::Subdomain,
    default: no_defaults,
    validate: anything,
    validate_update: any_change,
};
