//! What every controller is.

use k8s_openapi::jiff::Timestamp;

use super::object::{Change, Key, Kind, controller_of};
use super::plan::Plan;
use super::world::World;

/// A controller decides; it writes nothing itself, reads no clock and keeps no
/// state. Whatever it remembers is in the objects.
pub(crate) trait Controller: Send {
    /// Who it is in events (`source.component`).
    fn component(&self) -> &'static str;

    /// Which of this controller's objects a change may concern. `world` is as it
    /// is after the change.
    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key));

    /// What to do about one object, as the world is now.
    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan;

    /// What to write when creating something for this object was refused. The
    /// plan is decided anew a little later in any case.
    fn refused(&self, _world: &World, _key: &Key, _why: &str, _now: Timestamp) -> Plan {
        Plan::default()
    }
}

/// The objects of `kind` that managed the changed object, before and after.
pub(crate) fn managers(change: &Change, kind: Kind) -> impl Iterator<Item = Key> {
    let metas = [&change.old, &change.new]
        .into_iter()
        .flatten()
        .map(super::object::Object::meta);
    metas.filter_map(move |meta| {
        let owner = controller_of(meta)?;
        let is_kind = owner.kind == kind.name() && owner.api_version == kind.api_version();
        is_kind.then(|| Key::new(meta.namespace.clone().unwrap_or_default(), &*owner.name))
    })
}
