//! A pod's search list, walked here instead of one question after the other.
//!
//! A resolver that looks for `example.org` tries `example.org.shop.svc.cluster.local`
//! first, and goes on with the next element of its list as long as names do not
//! exist. Who knows the list can tell, at the first miss, where that walk ends.
//! The answer is then an alias of the name that it ends at.
//!
//! What makes it right: only names that do not exist are passed over, which every
//! resolver does too; the first that exists is the answer, also if it has no data
//! of the type (some resolvers go on then: they do it by themselves, from the
//! second element of their list); and whatever is not certain (no server answers,
//! a name too long) leaves the miss as it is, so that the asker walks on alone.
//!
//! A question does not say which step of which walk it is, or whether it is meant
//! as it is. What could be meant as it is stays a miss: the name of a service of
//! the pod's own namespace, or of an endpoint of a service that there is. What is
//! left are names that end in the name of the pod's own namespace and do not
//! exist anywhere: a later step of their walk looks like the first step for what
//! is before that. `tests/search.rs` holds all other names against both C
//! libraries' walks. That is why this is an option.

use crate::Zone;
use crate::name::Name;
use crate::table::Table;

/// The names that a walk tries after `name`, which does not exist. Empty if it is
/// not the first of a walk through `search`.
pub(crate) fn rest(zone: &Zone, table: &Table, name: &Name, search: &[Name]) -> Vec<Name> {
    let Some(first) = search.first() else {
        return Vec::new();
    };
    // The pod's own namespace.
    if first.below(&zone.domain) != Some(2) || first.label(1) != b"svc" {
        return Vec::new();
    }
    let labels = match name.below(first) {
        // A service, a port, or an endpoint of a service that there is.
        None | Some(0 | 1) => return Vec::new(),
        Some(_) if name.label(0).starts_with(b"_") => return Vec::new(),
        Some(2) if table.get(name.span(1, 3)).is_some() => return Vec::new(),
        Some(labels) => labels,
    };
    let wanted = name.span(0, labels);
    let mut names = Vec::with_capacity(search.len());
    for element in &search[1..] {
        match Name::join(wanted, element.wire()) {
            Some(name) => names.push(name),
            // The asker leaves it out as well, but may also give up.
            None => return Vec::new(),
        }
    }
    names.extend(Name::join(wanted, Name::root().wire()));
    names
}
