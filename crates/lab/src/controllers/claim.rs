//! Which objects belong to a controller's object: those that name it as their
//! manager, and those that its selector matches and nobody manages.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::cache::Cache;
use super::object::{Cached, Key, controller_of, controller_ref};
use super::plan::Plan;
use super::selector;

/// The owners in the object's namespace whose selector matches it, if nobody
/// manages it.
pub(crate) fn suitors<'a, O: Cached>(
    owners: &'a Cache<O>,
    selector_of: impl Fn(&O) -> &LabelSelector,
    object: &'a ObjectMeta,
    add: &mut dyn FnMut(Key),
) {
    if controller_of(object).is_some() {
        return;
    }
    let namespace = object.namespace.as_deref().unwrap_or_default();
    for owner in owners.in_namespace(namespace) {
        if selector::matches(selector_of(owner), object.labels.as_ref()) {
            add(Key::of(owner.metadata()));
        }
    }
}

/// The owner's objects. Plans the adoption of matching `orphans` and the
/// release of what the owner manages but no longer selects, unless the owner
/// itself is being deleted.
pub(crate) fn claim<'a, O: Cached, K: Cached>(
    plan: &mut Plan,
    owner: &O,
    wanted: &LabelSelector,
    managed: impl Iterator<Item = &'a Arc<K>>,
    orphans: impl Iterator<Item = &'a Arc<K>>,
) -> Vec<Arc<K>>
where
    super::object::Object: From<K>,
{
    let owner_leaves = owner.metadata().deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for object in managed {
        if selector::matches(wanted, object.metadata().labels.as_ref()) {
            claimed.push(object.clone());
        } else if !owner_leaves && object.metadata().deletion_timestamp.is_none() {
            let mut released = K::clone(object);
            let meta = released.metadata_mut();
            let owners = meta.owner_references.get_or_insert_default();
            owners.retain(|reference| Some(&reference.uid) != owner.metadata().uid.as_ref());
            plan.update(released);
        }
    }
    if owner_leaves {
        return claimed;
    }
    for object in orphans.filter(|object| object.metadata().deletion_timestamp.is_none()) {
        let mut adopted = K::clone(object);
        adopted
            .metadata_mut()
            .owner_references
            .get_or_insert_default()
            .push(controller_ref(owner));
        plan.update(adopted.clone());
        claimed.push(Arc::new(adopted));
    }
    claimed
}
