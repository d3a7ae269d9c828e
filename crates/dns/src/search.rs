//! A pod's search list, walked here instead of one question after the other.
//!
//! A resolver that looks for `example.org` tries `example.org.shop.svc.cluster.local`
//! first, and goes on with the next element of its list as long as names do not
//! exist. Who knows the list can tell, at the first miss, where that walk ends.
//! The answer is then an alias of the name that it ends at.
//!
//! Right by construction: only names that do not exist are passed over, which
//! every resolver does too; the first that exists is the answer, also if it has
//! no data of the type (some resolvers go on then: they do it by themselves, from
//! the second element of their list); and whatever is not certain (no server
//! answers, a name too long) leaves the miss as it is, so that the asker walks on
//! alone. `tests/search.rs` holds this against both C libraries' walks.

use crate::name::Name;

/// The names that a walk tries after `name`, which does not exist. Empty if it is
/// not the first of a walk through `search`.
pub(crate) fn rest(name: &Name, search: &[Name]) -> Vec<Name> {
    let Some(first) = search.first() else {
        return Vec::new();
    };
    let Some(labels @ 1..) = name.below(first) else {
        return Vec::new();
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
    // A single word is asked for as it is by some (musl) and not by others (glibc).
    if labels > 1 {
        names.extend(Name::join(wanted, Name::root().wire()));
    }
    names
}
