//! The types of the built-in kinds.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::{Object, text};

/// Texts of a group, in reading order. The core group comes first: the others
/// use its types, and may have types of the same name.
const CORE: &[&str] = &[
    include_str!("meta.fields"),
    include_str!("volumes.fields"),
    include_str!("containers.fields"),
    include_str!("pods.fields"),
    include_str!("claims.fields"),
    include_str!("services.fields"),
    include_str!("nodes.fields"),
    include_str!("config.fields"),
];

const OTHERS: &[(&str, &str)] = &[
    ("apps", include_str!("apps.fields")),
    ("autoscaling", include_str!("autoscaling.fields")),
    ("batch", include_str!("batch.fields")),
    ("discovery.k8s.io", include_str!("discovery.fields")),
    ("networking.k8s.io", include_str!("networking.fields")),
    ("coordination.k8s.io", include_str!("coordination.fields")),
    ("rbac.authorization.k8s.io", include_str!("rbac.fields")),
    ("apiextensions.k8s.io", include_str!("apiextensions.fields")),
];

static TYPES: LazyLock<HashMap<&'static str, HashMap<String, Arc<Object>>>> = LazyLock::new(|| {
    let mut core = HashMap::new();
    for text in CORE {
        text::read(text, &mut core);
    }
    let mut groups = HashMap::new();
    for (group, text) in OTHERS {
        let mut types = core.clone();
        text::read(text, &mut types);
        groups.insert(*group, types);
    }
    groups.insert("", core);
    groups
});

/// The type `name` as `group` (empty for the core group) knows it.
///
/// # Panics
/// If there is none: names come from the table of kinds, which a test reads.
pub(crate) fn object(group: &str, name: &str) -> Arc<Object> {
    TYPES
        .get(group)
        .and_then(|types| types.get(name))
        .unwrap_or_else(|| panic!("no type {name} in group {group:?}"))
        .clone()
}
