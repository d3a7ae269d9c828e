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
    /// Sets what the server decides about a new object.
    pub(super) create: fn(&mut Value),
    /// Carries over from the stored object what the new one may leave out: `(new, old)`.
    pub(super) update: fn(&mut Value, &Value),
    /// Checks a whole object, on create and on update.
    pub(super) validate: fn(&Value, &mut Errors),
    /// Checks a change: `(new, old, errors)`.
    pub(super) validate_update: fn(&Value, &Value, &mut Errors),
}

/// A DNS subdomain as name, and nothing beyond the fields' types: where the
/// rules of a kind begin.
pub(super) const PLAIN: Builtin = Builtin {
    name: NameRule::Subdomain,
    default: |_| {},
    create: |_| {},
    update: |_, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
};

/// Where a kind's rules come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Rules {
    Builtin(&'static Builtin),
    /// A custom resource: the schema in its definition.
    #[default]
    Custom,
}
