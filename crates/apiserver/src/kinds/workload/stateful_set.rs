//! StatefulSets.

use serde_json::{Value, json};

use super::super::error::Errors;
use super::super::get::{default, int, object_mut, text};
use super::super::names::NameRule;
use super::super::path::Path;
use super::super::pod::{choice, not_negative};
use super::super::rules::{Builtin, PLAIN};
use super::{default_template, validate_selector, validate_template};

/// What may change after creation.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Its name begins the names of its pods, which are host names.
pub(in crate::kinds) static RULES: Builtin = Builtin {
    name: NameRule::Label,
    default: defaults,
    validate,
    validate_update,
    ..PLAIN
};

fn defaults(set: &mut Value) {
    let spec = object_mut(set, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object_mut(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "partition", 0);
    }
    let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
    default(retention, "whenDeleted", "Retain");
    default(retention, "whenScaled", "Retain");
    for claim in super::super::get::list_mut(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
        default(object_mut(claim, "spec"), "volumeMode", "Filesystem");
        default(claim, "status", json!({"phase": "Pending"}));
    }
    default_template(spec);
}

fn validate(set: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = &set["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec, field, &path, errors);
    }
    let policies = ["OrderedReady", "Parallel"];
    choice(spec, "podManagementPolicy", &policies, &path, errors);
    let strategy = &spec["updateStrategy"];
    let strategy_path = path.child("updateStrategy");
    let types = ["OnDelete", "RollingUpdate"];
    choice(strategy, "type", &types, &strategy_path, errors);
    let rolling = strategy_path.child("rollingUpdate");
    not_negative(&strategy["rollingUpdate"], "partition", &rolling, errors);
    let ordinals = &spec["ordinals"];
    if int(ordinals, "start").is_some() {
        not_negative(ordinals, "start", &path.child("ordinals"), errors);
    }
    validate_selector(spec, "statefulset", &path, errors);
    validate_template(spec, "StatefulSet", &path, errors);
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let rest = |set: &Value| {
        let mut spec = set["spec"].clone();
        for field in MUTABLE {
            super::super::get::set(&mut spec, field, None);
        }
        spec
    };
    if rest(new) != rest(old) {
        errors.forbidden(
            &Path::root("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}
