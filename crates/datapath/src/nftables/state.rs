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
    let traffic = traffic(nftables)?;
    let read = readback::frontends(&raw);
    let mut tables = spread::Tables::default();
    Ok(read
        .into_iter()
        .filter_map(|(frontend, read)| {
            let held = held.get(&frontend).copied().unwrap_or_default();
            let bytes = traffic.get(&frontend);
            let placed = read.placed(&mut tables)?;
            state(frontend, &read, &placed, held, bytes.unwrap_or(&none))
        })
        .collect())
}

fn state(
    frontend: Frontend,
    read: &Read,
    placed: &Placed,
    affinities_held: u64,
    bytes: &BTreeMap<Backend, u64>,
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
            bytes: Some(count(bytes, backend)),
        };
        let mut states: Vec<_> = backends.iter().map(state).collect();
        states.sort_by_key(|state| state.backend);
        states
    };
    let returned = |backend: &Backend| count(&read.members, backend);
    let is_local = matches!(class.outside, Outside::Local(_));
    let backends = with(&placed.inside, &|backend| {
        let outside = if is_local { 0 } else { count(&outer, backend) };
        count(&inside, backend) + outside + returned(backend)
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
        affinities_held,
        source_ranges: placed.row.source_ranges.clone(),
        refused,
    })
}

/// Bytes of each frontend's backends.
fn traffic(nftables: &mut Nftables) -> Result<BTreeMap<Frontend, BTreeMap<Backend, u64>>, Error> {
    let mut found: BTreeMap<Frontend, BTreeMap<Backend, u64>> = BTreeMap::new();
    for family in FAMILIES {
        let set = Set::Traffic.name(family);
        for element in nftables.elements(TABLE, set).map_err(refused)? {
            let Some((frontend, rest)) = keys::read_frontend(family, &element.key) else {
                continue;
            };
            if let Some(backend) = keys::read_backend(family, rest) {
                let bytes = found.entry(frontend).or_default();
                bytes.insert(backend, element.bytes);
            }
        }
    }
    Ok(found)
}

/// Forgets the bytes of what is no backend of a frontend any more. What packets
/// of its last connections still count is forgotten the next time.
pub(super) fn forget_traffic(
    nftables: &mut Nftables,
    is_known: impl Fn(&Frontend, &Backend) -> bool,
) -> Result<(), Error> {
    let mut batch = ripstop_netlink::nftables::Batch::new(TABLE);
    for family in FAMILIES {
        let set = Set::Traffic.name(family);
        let elements = nftables.elements(TABLE, set).map_err(refused)?;
        let gone = elements.iter().filter(|element| {
            let pair = keys::read_frontend(family, &element.key)
                .and_then(|(frontend, rest)| Some((frontend, keys::read_backend(family, rest)?)));
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
