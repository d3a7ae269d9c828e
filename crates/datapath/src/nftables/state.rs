//! The table in the kernel for people: `ripstop service`.

use std::collections::{BTreeMap, BTreeSet};

use ripstop_netlink::nftables::{Element, Family, Nftables};
use ripstop_plan::{Backend, Frontend};

use super::class::Outside;
use super::readback::Scope;
use super::readback::{self, connections};
use super::rows::{Placed, Read};
use super::sets::{FAMILIES, Set};
use super::{TABLE, keys, refused, spread};
use crate::engine::Error;
use crate::state::{BackendState, FrontendState};

/// Times that elements are read again when one ended meanwhile.
const ATTEMPTS: usize = 8;

/// All frontends, without the ports of pods.
pub(super) fn services(nftables: &mut Nftables) -> Result<Vec<FrontendState>, Error> {
    let raw = readback::raw(nftables, Scope::ButBlocks)?;
    let none = BTreeMap::new();
    let mut held: BTreeMap<Frontend, u64> = BTreeMap::new();
    for (frontend, _, _) in affinities(nftables)? {
        *held.entry(frontend).or_default() += 1;
    }
    let traffic = counted(nftables, Set::Traffic)?;
    let spread = counted(nftables, Set::Led)?;
    let read = readback::frontends(&raw);
    let mut tables = spread::Tables::default();
    Ok(read
        .into_iter()
        .filter_map(|(frontend, read)| {
            let held = held.get(&frontend).copied().unwrap_or_default();
            let of = |counted| BTreeMap::get(counted, &frontend).unwrap_or(&none);
            let counts = Counts {
                traffic: of(&traffic),
                spread: of(&spread),
                affinities_held: held,
            };
            let placed = read.placed(&mut tables)?;
            state(frontend, &read, &placed, &counts)
        })
        .collect())
}

/// What packets counted of a frontend.
struct Counts<'a> {
    traffic: &'a BTreeMap<Backend, Counter>,
    /// Clients from outside who were spread.
    spread: &'a BTreeMap<Backend, Counter>,
    affinities_held: u64,
}

#[derive(Clone, Copy, Default)]
struct Counter {
    packets: u64,
    bytes: u64,
}

fn state(
    frontend: Frontend,
    read: &Read,
    placed: &Placed,
    counts: &Counts<'_>,
) -> Option<FrontendState> {
    if placed.host_port {
        return None;
    }
    let class = read.class?;
    let inside = connections(&read.slots);
    let outer = connections(&read.outer);
    let count = |of: &BTreeMap<Backend, u64>, backend: &Backend| -> u64 {
        of.get(backend).copied().unwrap_or_default()
    };
    let with = |backends: &[Backend], counted: &dyn Fn(&Backend) -> u64| {
        let state = |backend: &Backend| BackendState {
            backend: *backend,
            connections: counted(backend),
            bytes: Some(
                counts
                    .traffic
                    .get(backend)
                    .copied()
                    .unwrap_or_default()
                    .bytes,
            ),
        };
        let mut states: Vec<_> = backends.iter().map(state).collect();
        states.sort_by_key(|state| state.backend);
        states
    };
    let returned = |backend: &Backend| count(&read.members, backend);
    let is_local = matches!(class.outside, Outside::Local(_));
    let spread = |backend: &Backend| {
        let counter = counts.spread.get(backend).filter(|_| !is_local);
        counter.map_or(0, |counter| counter.packets)
    };
    let backends = with(&placed.inside, &|backend| {
        count(&inside, backend) + spread(backend) + returned(backend)
    });
    let mut outside = is_local.then(|| with(&placed.local, &|backend| count(&outer, backend)));
    for state in outside.iter_mut().flatten() {
        // Whose bytes they are is not known where both lists have a backend.
        if placed.inside.contains(&state.backend) {
            state.bytes = None;
        }
    }
    let led: u64 = inside
        .values()
        .chain(outer.values())
        .chain(read.members.values())
        .sum();
    // Where nobody is led anywhere, everybody who asked was refused. Elsewhere
    // the frontend may be looked up twice for a client from outside.
    let refused = if class.backends == 0 || is_local {
        read.asked.saturating_sub(led)
    } else {
        0
    };
    Some(FrontendState {
        frontend,
        backends,
        outside,
        affinity: placed.row.affinity,
        affinities_held: counts.affinities_held,
        source_ranges: placed.row.source_ranges.clone(),
        refused,
    })
}

/// What a set counted of each frontend's backends.
fn counted(
    nftables: &mut Nftables,
    set: Set,
) -> Result<BTreeMap<Frontend, BTreeMap<Backend, Counter>>, Error> {
    let mut found: BTreeMap<Frontend, BTreeMap<Backend, Counter>> = BTreeMap::new();
    for family in FAMILIES {
        let elements = nftables.elements(TABLE, set.name(family));
        for element in elements.map_err(refused)? {
            if let Some((frontend, backend)) = pair(family, &element) {
                let counter = Counter {
                    packets: element.packets,
                    bytes: element.bytes,
                };
                found.entry(frontend).or_default().insert(backend, counter);
            }
        }
    }
    Ok(found)
}

/// Which frontend and backend a counter is of.
fn pair(family: Family, element: &Element) -> Option<(Frontend, Backend)> {
    let (frontend, rest) = keys::read_frontend(family, &element.key)?;
    Some((frontend, keys::read_backend(family, rest)?))
}

/// Forgets what was counted of what is no backend of a frontend any more. What
/// packets of its last connections still count is forgotten the next time.
pub(super) fn forget_counted(
    nftables: &mut Nftables,
    is_known: impl Fn(&Frontend, &Backend) -> bool,
) -> Result<(), Error> {
    let mut batch = ripstop_netlink::nftables::Batch::new(TABLE);
    let sets = [Set::Traffic, Set::Led].into_iter();
    for (set, family) in sets.flat_map(|set| FAMILIES.map(|family| (set, family))) {
        let set = set.name(family);
        let elements = nftables.elements(TABLE, set).map_err(refused)?;
        let gone = elements.iter().filter(|element| {
            let pair = pair(family, element);
            !pair.is_some_and(|(frontend, backend)| is_known(&frontend, &backend))
        });
        batch.delete_elements(set, gone);
    }
    nftables.commit(&batch).map_err(refused)
}

/// Clients that hold a backend: of which frontend, and the element.
fn affinities(nftables: &mut Nftables) -> Result<Vec<(Frontend, Family, Element)>, Error> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let elements = nftables
            .elements(TABLE, Set::Affinity.name(family))
            .map_err(refused)?;
        found.extend(elements.into_iter().filter_map(|element| {
            let key = element.key.get(Set::Affinity.frontend_at(family)..)?;
            let (frontend, _) = keys::read_frontend(family, key)?;
            Some((frontend, family, element))
        }));
    }
    Ok(found)
}

/// Forgets who holds a backend of these frontends.
pub(super) fn forget_affinities(
    nftables: &mut Nftables,
    frontends: &BTreeSet<Frontend>,
) -> Result<(), Error> {
    if frontends.is_empty() {
        return Ok(());
    }
    for attempt in 1.. {
        let mut batch = ripstop_netlink::nftables::Batch::new(TABLE);
        let held = affinities(nftables)?;
        for family in FAMILIES {
            let of_family = held
                .iter()
                .filter(|(frontend, of, _)| *of == family && frontends.contains(frontend))
                .map(|(_, _, element)| element);
            batch.delete_elements(Set::Affinity.name(family), of_family);
        }
        match nftables.commit(&batch) {
            // One ended by itself since it was read.
            Err(error) if error.is_not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome.map_err(refused),
        }
    }
    Ok(())
}
