//! A pod's search list, walked here instead of one question after the other.
//!
//! A resolver that looks for `example.org` tries `example.org.shop.svc.cluster.local`
//! first, and goes on with the next element of its list as long as names do not
//! exist. Who knows the list can tell, at the first miss, where that walk ends.
//!
//! But a question does not say that it is the first of a walk. An application may
//! mean `example.org.shop.svc.cluster.local` as it is, and then there must be no
//! such name: both questions are the same bytes from the same address, and nothing
//! that was asked before tells which of them comes next. So no server that answers
//! first steps below `shop.svc.cluster.local` is right about all names.
//!
//! What can be right is a list that says what it is. `shop.search.cluster.local`,
//! as the first element, stands for `shop.svc.cluster.local`: no object has a name
//! below `search`, so nobody but a walk asks for one. Such a name is an alias of
//! the first name of the walk that exists, with data of the type or without; the
//! asker would go on after one without data if it is glibc, and stop if it is musl,
//! and goes on or stops here as well, because the rest of its list is what it was.
//! Whatever is not certain (no server answers, a name is too long) leaves the miss
//! as it is, so that the asker walks on alone; and so does a single word outside of
//! the cluster, which resolvers may be told not to ask for. Who asks from elsewhere,
//! without a list known here, gets what `svc` has.
//!
//! `tests/search.rs` holds all of this against both C libraries' walks.

use crate::Zone;
use crate::name::Name;

const SEARCH: &[u8] = b"search";

/// What a name below `search` of the cluster domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// `search` or `<namespace>.search`: there are names below it.
    Top,
    /// An alias of the first of these that exists.
    Through(Vec<Name>),
}

/// The walk that `name` is the first step of, for a client with this search list.
/// `None` if it is no name of a walk.
pub(crate) fn walk(zone: &Zone, name: &Name, search: &[Name]) -> Option<Walk> {
    let below = name.below(&zone.domain)?;
    if below == 0 || name.label(below - 1) != SEARCH {
        return None;
    }
    let Some(wanted @ 1..) = below.checked_sub(2) else {
        return Some(Walk::Top);
    };
    let mut names: Vec<Name> = meant(zone, name).into_iter().collect();
    let its_own = |first: &Name| name.below(first) == Some(wanted);
    if let Some((first, rest)) = search.split_first()
        && its_own(first)
    {
        let as_is = (wanted > 1).then(Name::root);
        for element in rest.iter().chain(&as_is) {
            match Name::join(name.span(0, wanted), element.wire()) {
                Some(name) if meant(zone, &name).is_none() => names.push(name),
                // Too long, or a walk of its own.
                _ => break,
            }
        }
    }
    Some(Walk::Through(names))
}

/// The same name below `svc` instead of `search`. `None` if there is nothing to
/// replace.
pub(crate) fn meant(zone: &Zone, name: &Name) -> Option<Name> {
    let below = name.below(&zone.domain)?;
    let before = below.checked_sub(1)?;
    if name.label(before) != SEARCH {
        return None;
    }
    let tail = [b"\x03svc", zone.domain.wire()].concat();
    Name::join(name.span(0, before), &tail)
}
