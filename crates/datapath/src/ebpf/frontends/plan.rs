//! What to write so that a frontend leads where it should.

use std::collections::BTreeSet;
use std::sync::Arc;

use ripstop_abi::{
    BACKENDS_PER_SLOTS, Backend, BackendKey, BackendRow, Frontend, IPPROTO_UDP, MaglevRow,
    ServiceAddress, Slots, SlotsKey, SourceKey, TableRow,
};

use super::row::{Row, Wanted, chunks_of_slots};
use crate::Error;
use crate::ebpf::maglev;
use crate::ebpf::maps::Maps;
use crate::lists::{Difference, Differences};

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

/// What was found out last: a service has the same backends at each of its
/// addresses.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tables: maglev::Tables,
    differences: Differences<Arc<[Backend]>>,
}

impl Known {
    /// Between the `ids` of a row and these backends.
    fn difference(&mut self, row: &Row, backends: &Arc<[Backend]>) -> Arc<Difference> {
        let all = row.wanted.all_backends();
        if all.len() == row.ids.len() {
            return self.differences.of(&all, backends);
        }
        // The kernel had more of them than anything leads to.
        let all: Vec<Backend> = row.ids.iter().map(|(backend, _)| *backend).collect();
        Arc::new(Difference::of(&all, backends))
    }
}

impl Planned {
    /// `old` is the row in whose place the new one comes, with the same set.
    pub(super) fn new(
        address: ServiceAddress,
        old: Option<Row>,
        wanted: Wanted,
        set: u32,
        known: &mut Known,
    ) -> Self {
        let all = wanted.all_backends();
        let (difference, ids) = match &old {
            Some(old) => (known.difference(old, &all), &old.ids[..]),
            None => (Arc::new(Difference::of(&[], &all)), &[][..]),
        };
        let mut next_id = old.as_ref().map_or(1, |old| old.next_id);
        let mut backends = Vec::with_capacity(difference.new.len());
        let ids = difference.apply(ids, |at| {
            let (backend, id) = (all[at], next_id);
            next_id += 1;
            backends.push((BackendKey { set, id }, BackendRow::new(backend)));
            (backend, id)
        });
        let mut row = Row {
            set,
            wanted,
            ids: ids.into(),
            slots: Arc::default(),
            next_id,
            intact: true,
        };
        let there = old.as_ref();
        row.slots = slots(there, &row, &difference).into();
        let sources_there: BTreeSet<SourceKey> = there.into_iter().flat_map(Row::sources).collect();
        let sources = row.sources().filter(|key| !sources_there.contains(key));
        let tables = &mut known.tables;
        Self {
            address,
            backends,
            sources: sources.map(|key| (key, 1)).collect(),
            slots: keyed(
                &row,
                slot_chunks(there, &row),
                there.map_or(Vec::new(), Row::slot_chunks),
            ),
            maglev: keyed(
                &row,
                row.maglev_chunks(tables),
                there.map_or(Vec::new(), |old| old.maglev_chunks(tables)),
            ),
            frontend: vec![(address, row.frontend())],
            unused: unused(there, &row, &difference),
            in_place: there.is_some(),
            row,
            old,
        }
    }

    /// Makes everything as it was.
    pub(super) fn undo(&self, maps: &Maps, known: &mut Known) {
        let Some(old) = &self.old else {
            return everything(&self.row).remove(maps);
        };
        // Rows that were there have room.
        let slots = keyed(old, old.slot_chunks(), Vec::new());
        let maglev = keyed(old, old.maglev_chunks(&mut known.tables), Vec::new());
        let again = [
            maps.slots.put_all(&slots, |_| String::new()).1,
            maps.maglev.put_all(&maglev, |_| String::new()).1,
        ];
        for error in again.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a frontend that did not fit is not as it was");
        }
        let difference = known.difference(&self.row, &old.wanted.all_backends());
        unused(Some(&self.row), old, &difference).remove(maps);
    }
}

/// Rows of a set, without those that are there already.
fn keyed<V: TableRow + PartialEq>(row: &Row, chunks: Vec<V>, there: Vec<V>) -> Vec<(SlotsKey, V)> {
    let chunks = chunks.into_iter().enumerate();
    chunks
        .filter(|(at, chunk)| there.get(*at) != Some(chunk))
        .map(|(at, chunk)| (row.slots_key(at), chunk))
        .collect()
}

/// The numbers of the backends in slots: who stays keeps its slot while there
/// are as many. The difference is that of their `ids`.
fn slots(old: Option<&Row>, new: &Row, difference: &Difference) -> Vec<u32> {
    let before = old.map_or(&[][..], |old| &old.slots[..]);
    let (mut gone, mut rest) = if [old, Some(new)]
        .into_iter()
        .flatten()
        .all(Row::has_one_list)
    {
        let ids = old.map_or(&[][..], |old| &old.ids[..]);
        (
            numbers(ids, &difference.gone),
            numbers(&new.ids, &difference.new),
        )
    } else {
        let slots_before: BTreeSet<u32> = before.iter().copied().collect();
        let wanted = new
            .wanted
            .backends
            .iter()
            .filter_map(|backend| new.id(backend));
        let slots_after: BTreeSet<u32> = wanted.collect();
        let of = |set: &BTreeSet<u32>, other| set.difference(other).copied().collect();
        (
            of(&slots_before, &slots_after),
            of(&slots_after, &slots_before),
        )
    };
    gone.sort_unstable();
    let stays = |id: &u32| gone.binary_search(id).is_err();
    let count = new.wanted.backends.len();
    let (kept, behind) = before.split_at(before.len().min(count));
    // Who was behind the new end, and who is new.
    rest.extend(behind.iter().filter(|id| stays(id)));
    rest.sort_unstable();
    let mut rest = rest.into_iter();
    let kept = kept.iter().map(|id| Some(*id).filter(stays));
    kept.chain(std::iter::repeat(None))
        .take(count)
        .filter_map(|id| id.or_else(|| rest.next()))
        .collect()
}

/// Of some of the backends.
fn numbers(ids: &[(Backend, u32)], some: &[usize]) -> Vec<u32> {
    some.iter().map(|at| ids[*at].1).collect()
}

/// The new chunks, with the old slots behind the new ones where there were more:
/// they are read until the frontend says that there are fewer.
fn slot_chunks(old: Option<&Row>, new: &Row) -> Vec<Slots> {
    let (after, before) = (&new.slots, old.map_or(&[][..], |old| &old.slots[..]));
    let end = after.len().next_multiple_of(BACKENDS_PER_SLOTS as usize);
    let behind = before.get(after.len()..end.min(before.len()));
    match behind {
        Some(behind) => chunks_of_slots(&[after, behind].concat()),
        None => chunks_of_slots(after),
    }
}

/// What of the old row the new one does not have. The difference is that of their
/// `ids`.
fn unused(old: Option<&Row>, new: &Row, difference: &Difference) -> Unused {
    let Some(old) = old else {
        return Unused::default();
    };
    let gone = numbers(&old.ids, &difference.gone).into_iter();
    let sources: BTreeSet<SourceKey> = new.sources().collect();
    Unused {
        backends: gone.map(|id| BackendKey { set: old.set, id }).collect(),
        sources: old.sources().filter(|key| !sources.contains(key)).collect(),
        slots: old.slots_keys().skip(new.slots_keys().count()).collect(),
        maglev: old.maglev_keys().skip(new.maglev_keys().count()).collect(),
    }
}

#[cfg(test)]
mod tests;
