//! What to write so that a frontend leads where it should.

use std::collections::BTreeSet;

use ripstop_abi::{
    Backend, BackendKey, BackendRow, Frontend, IPPROTO_UDP, MaglevRow, ServiceAddress, Slots,
    SlotsKey, SourceKey, TableRow,
};

use super::row::{Row, Wanted};
use crate::Error;
use crate::ebpf::maps::Maps;

/// A frontend's change: rows to write, in the order of the fields.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) address: ServiceAddress,
    pub(super) backends: Vec<(BackendKey, BackendRow)>,
    pub(super) sources: Vec<(SourceKey, u32)>,
    pub(super) slots: Vec<(SlotsKey, Slots)>,
    pub(super) maglev: Vec<(SlotsKey, MaglevRow)>,
    /// One row.
    pub(super) frontend: Vec<(ServiceAddress, Frontend)>,
    /// What nothing leads to then.
    pub(super) unused: Unused,
    /// The set is that of the frontend as it is.
    pub(super) in_place: bool,
    pub(super) row: Row,
    old: Option<Row>,
}

/// Rows that nothing leads to.
#[derive(Debug, Default)]
pub(super) struct Unused {
    backends: Vec<BackendKey>,
    sources: Vec<SourceKey>,
    slots: Vec<SlotsKey>,
    maglev: Vec<SlotsKey>,
}

impl Unused {
    /// Whether sockets for datagrams may be connected to what goes. (TCP's
    /// connections live on.)
    pub(super) fn strands_datagrams(&self, frontend: &ServiceAddress) -> bool {
        frontend.protocol == IPPROTO_UDP && !self.backends.is_empty()
    }

    /// What cannot be removed is found when the tables are read next.
    pub(super) fn remove(&self, maps: &Maps) {
        let said = |result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::warn!(%error, "a row that is no longer used stays");
            }
        };
        said(maps.slots.remove_all(&self.slots));
        said(maps.maglev.remove_all(&self.maglev));
        said(maps.backends.remove_all(&self.backends));
        for key in &self.sources {
            said(maps.sources.remove(key));
        }
    }
}

/// All that a frontend leads to.
pub(super) fn everything(row: &Row) -> Unused {
    let key = |(_, id): &(Backend, u32)| BackendKey {
        set: row.set,
        id: *id,
    };
    Unused {
        backends: row.ids.iter().map(key).collect(),
        sources: row.sources().collect(),
        slots: row.slots_keys().collect(),
        maglev: row.maglev_keys().collect(),
    }
}

impl Planned {
    pub(super) fn new(
        address: ServiceAddress,
        old: Option<&Row>,
        mut wanted: Wanted,
        set: u32,
    ) -> Self {
        // More than fit into a row are more than anybody has.
        wanted.backends.truncate(u16::MAX.into());
        let mut backends = Vec::new();
        let mut next_id = old.map_or(1, |old| old.next_id);
        let mut all = wanted.backends.clone();
        if let Some(outside) = &wanted.outside {
            all.extend(outside);
            all.sort_unstable();
            all.dedup();
        }
        let mut ids = Vec::with_capacity(all.len());
        for backend in all {
            let id = old.and_then(|old| old.id(&backend)).unwrap_or_else(|| {
                let id = next_id;
                next_id += 1;
                backends.push((BackendKey { set, id }, BackendRow::new(backend)));
                id
            });
            ids.push((backend, id));
        }
        let mut row = Row {
            set,
            wanted,
            ids,
            slots: Vec::new(),
            next_id,
            intact: true,
        };
        row.slots = slots(old, &row);
        let (frontend, unused) = (vec![(address, row.frontend())], unused(old, &row));
        let slots = keyed(&row, slot_chunks(old, &row), old.map(Row::slot_chunks));
        let maglev = keyed(&row, row.maglev_chunks(), old.map(Row::maglev_chunks));
        let known: BTreeSet<SourceKey> = old.into_iter().flat_map(Row::sources).collect();
        let sources = row.sources().filter(|key| !known.contains(key));
        Self {
            address,
            backends,
            sources: sources.map(|key| (key, 1)).collect(),
            slots,
            maglev,
            frontend,
            unused,
            in_place: old.is_some(),
            row,
            old: old.cloned(),
        }
    }

    /// Makes everything as it was.
    pub(super) fn undo(&self, maps: &Maps) {
        let Some(old) = &self.old else {
            return everything(&self.row).remove(maps);
        };
        // Rows that were there have room.
        let slots = keyed(old, old.slot_chunks(), None);
        let maglev = keyed(old, old.maglev_chunks(), None);
        let again = [
            maps.slots.put_all(&slots, |_| String::new()).1,
            maps.maglev.put_all(&maglev, |_| String::new()).1,
        ];
        for error in again.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a frontend that did not fit is not as it was");
        }
        unused(Some(&self.row), old).remove(maps);
    }
}

/// Rows of a set, without those that are there already.
fn keyed<V: TableRow + PartialEq>(
    row: &Row,
    chunks: Vec<V>,
    there: Option<Vec<V>>,
) -> Vec<(SlotsKey, V)> {
    let there = there.unwrap_or_default();
    let chunks = chunks.into_iter().enumerate();
    chunks
        .filter(|(at, chunk)| there.get(*at) != Some(chunk))
        .map(|(at, chunk)| (row.slots_key(at), chunk))
        .collect()
}

/// The numbers of the backends in slots: who stays keeps its slot while there
/// are as many.
fn slots(old: Option<&Row>, new: &Row) -> Vec<u32> {
    let mut ids: BTreeSet<u32> = new
        .wanted
        .backends
        .iter()
        .filter_map(|backend| new.id(backend))
        .collect();
    let count = ids.len();
    let mut slots = vec![None; count];
    let old = old.map_or(&[] as &[u32], |old| &old.slots);
    for (slot, id) in slots.iter_mut().zip(old) {
        *slot = ids.take(id);
    }
    let mut rest = ids.into_iter();
    slots
        .into_iter()
        .filter_map(|id| id.or_else(|| rest.next()))
        .collect()
}

/// The new chunks, with the old slots behind the new ones where there were more:
/// they are read until the frontend says that there are fewer.
fn slot_chunks(old: Option<&Row>, new: &Row) -> Vec<Slots> {
    let mut row = new.clone();
    if let Some(old) = old
        && old.slots.len() > row.slots.len()
    {
        let per_row = ripstop_abi::BACKENDS_PER_SLOTS as usize;
        let end = row
            .slots
            .len()
            .next_multiple_of(per_row)
            .min(old.slots.len());
        row.slots.extend(&old.slots[row.slots.len()..end]);
    }
    row.slot_chunks()
}

/// What of the old row the new one does not have.
fn unused(old: Option<&Row>, new: &Row) -> Unused {
    let Some(old) = old else {
        return Unused::default();
    };
    let (before, after) = (everything(old), everything(new));
    let gone = |(backend, id): &&(Backend, u32)| new.id(backend) != Some(*id);
    let key = |(_, id): &(Backend, u32)| BackendKey {
        set: old.set,
        id: *id,
    };
    fn rest<K>(before: Vec<K>, after: &[K]) -> Vec<K> {
        before.into_iter().skip(after.len()).collect()
    }
    let sources = before.sources.into_iter();
    Unused {
        backends: old.ids.iter().filter(gone).map(key).collect(),
        sources: sources.filter(|key| !after.sources.contains(key)).collect(),
        slots: rest(before.slots, &after.slots),
        maglev: rest(before.maglev, &after.maglev),
    }
}
