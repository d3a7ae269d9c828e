//! Garbage collection: what outlives all its owners is deleted.
//!
//! One collector for each kind; its keys are the objects of that kind. They are
//! looked at when they come, when an owner of theirs goes, and while they are
//! being deleted together with what they own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

use super::controller::Controller;
use super::object::{Cached, Change, Key, Kind, Object, for_kind, for_object};
use super::plan::{Plan, Removal};
use super::world::World;
use k8s_openapi::Metadata;

/// The owner waits until what it owns (and what blocks it) is gone.
const FOREGROUND: &str = "foregroundDeletion";
/// The owner waits until what it owns has forgotten it.
const ORPHAN: &str = "orphan";

#[derive(Debug)]
pub(crate) struct GarbageCollector {
    pub(crate) kind: Kind,
}

impl GarbageCollector {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.iter().map(|kind| Self { kind: *kind })
    }

    fn get(&self, world: &World, key: &Key) -> Option<Object> {
        for_kind!(self.kind, K => K::cache(&world.objects).get(key).cloned().map(K::object))
    }

    fn dependents(&self, world: &World, owner: &str, add: &mut dyn FnMut(Key)) {
        for_kind!(self.kind, K => {
            let dependents = K::cache(&world.objects).dependents(owner);
            dependents.for_each(|one| add(Key::of(one.metadata())));
        });
    }
}

impl Controller for GarbageCollector {
    fn component(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        let latest = change.latest();
        if latest.kind() == self.kind && needs_a_look(change) {
            add(latest.key());
        }
        // What an owner leaves behind when it goes, or takes along.
        let waits = |object: &Object| waits_for(object.meta(), FOREGROUND);
        let replaced = change.old.as_ref().map(uid) != change.new.as_ref().map(uid);
        if let Some(old) = &change.old
            && replaced
        {
            self.dependents(world, uid(old), add);
            // The last one that an owner waited for.
            for owner in owners(old.meta()).filter(|owner| self.names(owner)) {
                add(owner_key(owner, old.meta(), self.kind));
            }
        }
        if change.new.as_ref().is_some_and(waits) {
            self.dependents(world, uid(latest), add);
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = self.get(world, key) else {
            return plan;
        };
        if object.meta().deletion_timestamp.is_some() {
            if waits_for(object.meta(), ORPHAN) {
                release_dependents(world, &object, &mut plan);
            } else if waits_for(object.meta(), FOREGROUND) {
                take_dependents_along(world, &object, &mut plan);
            }
            return plan;
        }
        judge(world, &object, &mut plan);
        plan
    }
}

impl GarbageCollector {
    fn names(&self, owner: &OwnerReference) -> bool {
        owner.kind == self.kind.name() && owner.api_version == self.kind.api_version()
    }
}

/// New, of other owners, or on its way out.
fn needs_a_look(change: &Change) -> bool {
    let Some(new) = &change.new else { return false };
    let old = change.old.as_ref().map(Object::meta);
    let same_owners = old.is_some_and(|old| old.owner_references == new.meta().owner_references);
    let leaves = new.meta().deletion_timestamp.is_some()
        && (waits_for(new.meta(), FOREGROUND) || waits_for(new.meta(), ORPHAN));
    leaves || (!same_owners && owners(new.meta()).next().is_some())
}

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Present,
    /// Present, but it waits for what it owns to go.
    Leaving,
    Absent,
}

fn standing(world: &World, owner: &OwnerReference, dependent: &ObjectMeta) -> Standing {
    let kind = Kind::ALL
        .iter()
        .find(|kind| kind.name() == owner.kind && kind.api_version() == owner.api_version);
    // Of kinds that are not watched nothing is known: nobody is deleted for them.
    let Some(kind) = kind else {
        return Standing::Present;
    };
    let key = owner_key(owner, dependent, *kind);
    let found = for_kind!(*kind, K => K::cache(&world.objects).get(&key).cloned().map(K::object));
    match found {
        Some(found) if uid(&found) != owner.uid => Standing::Absent,
        Some(found)
            if found.meta().deletion_timestamp.is_some() && waits_for(found.meta(), FOREGROUND) =>
        {
            Standing::Leaving
        }
        Some(_) => Standing::Present,
        None => Standing::Absent,
    }
}

/// Deletes an object whose owners are all gone or leaving; lets it forget those
/// that are gone if others stay.
fn judge(world: &World, object: &Object, plan: &mut Plan) {
    let standings: Vec<Standing> = owners(object.meta())
        .map(|owner| standing(world, owner, object.meta()))
        .collect();
    let has = |standing| standings.contains(&standing);
    if has(Standing::Present) {
        if has(Standing::Absent) || has(Standing::Leaving) {
            let stays =
                |owner: &OwnerReference| standing(world, owner, object.meta()) == Standing::Present;
            update_meta(object, plan, |meta| {
                meta.owner_references.get_or_insert_default().retain(stays);
            });
        }
    } else if has(Standing::Leaving) {
        plan.remove(object, Removal::Foreground);
    } else if has(Standing::Absent) {
        plan.remove(object, Removal::Graceful);
    }
}

/// Dependents delete themselves when they see their owner leave; when none is
/// left that blocks it, the owner may go.
fn take_dependents_along(world: &World, object: &Object, plan: &mut Plan) {
    let owner = uid(object);
    let mut blocked = false;
    for kind in Kind::ALL {
        for_kind!(*kind, K => {
            blocked |= K::cache(&world.objects).dependents(owner).any(|one| {
                owners(one.metadata()).any(|reference| {
                    reference.uid == owner && reference.block_owner_deletion == Some(true)
                })
            });
        });
    }
    if !blocked {
        drop_finalizer(object, FOREGROUND, plan);
    }
}

fn release_dependents(world: &World, object: &Object, plan: &mut Plan) {
    let owner = uid(object);
    for kind in Kind::ALL {
        for_kind!(*kind, K => {
            for dependent in K::cache(&world.objects).dependents(owner) {
                update_meta(&K::object(dependent.clone()), plan, |meta| {
                    meta.owner_references.get_or_insert_default().retain(|one| one.uid != owner);
                });
            }
        });
    }
    drop_finalizer(object, ORPHAN, plan);
}

fn drop_finalizer(object: &Object, finalizer: &str, plan: &mut Plan) {
    update_meta(object, plan, |meta| {
        meta.finalizers
            .get_or_insert_default()
            .retain(|one| one != finalizer);
    });
}

fn update_meta(object: &Object, plan: &mut Plan, change: impl FnOnce(&mut ObjectMeta)) {
    for_object!(object, inner => {
        let mut inner = (**inner).clone();
        change(&mut inner.metadata);
        plan.update(inner);
    });
}

fn uid(object: &Object) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

fn waits_for(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some()
        && meta.finalizers.iter().flatten().any(|one| one == finalizer)
}

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    meta.owner_references.iter().flatten()
}

/// An owner is in the namespace of what it owns, or in none.
fn owner_key(owner: &OwnerReference, dependent: &ObjectMeta, kind: Kind) -> Key {
    let namespace = if kind.is_namespaced() {
        dependent.namespace.clone()
    } else {
        None
    };
    Key::new(namespace.unwrap_or_default(), &*owner.name)
}
