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
    /// `old` is the row in whose place the new one comes, with the same set.
    pub(super) fn new(
        address: ServiceAddress,
        old: Option<Row>,
        wanted: Wanted,
        set: u32,
        tables: &mut maglev::Tables,
    ) -> Self {
        let all = wanted.all_backends();
        let (ids, new) = numbered(&all, old.as_ref());
        let next_id = old.as_ref().map_or(1, |old| old.next_id) + new.len() as u32;
        let new = new.into_iter().map(|at: usize| {
            let (backend, id) = ids[at];
            (BackendKey { set, id }, BackendRow::new(backend))
        });
        let backends = new.collect();
        let mut row = Row {
            set,
            wanted,
            ids: ids.into(),
            slots: Arc::default(),
            next_id,
            intact: true,
        };
        row.slots = slots(old.as_ref(), &row).into();
        let known: BTreeSet<SourceKey> = old.iter().flat_map(Row::sources).collect();
        let sources = row.sources().filter(|key| !known.contains(key));
        let there = old.as_ref();
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
            unused: unused(there, &row),
            in_place: there.is_some(),
            row,
            old,
        }
    }

    /// Makes everything as it was.
    pub(super) fn undo(&self, maps: &Maps, tables: &mut maglev::Tables) {
        let Some(old) = &self.old else {
            return everything(&self.row).remove(maps);
        };
        // Rows that were there have room.
        let slots = keyed(old, old.slot_chunks(), Vec::new());
        let maglev = keyed(old, old.maglev_chunks(tables), Vec::new());
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
fn keyed<V: TableRow + PartialEq>(row: &Row, chunks: Vec<V>, there: Vec<V>) -> Vec<(SlotsKey, V)> {
    let chunks = chunks.into_iter().enumerate();
    chunks
        .filter(|(at, chunk)| there.get(*at) != Some(chunk))
        .map(|(at, chunk)| (row.slots_key(at), chunk))
        .collect()
}

/// The backends with their numbers: those that they have, or new ones. And which
/// of them are new.
fn numbered(all: &[Backend], old: Option<&Row>) -> (Vec<(Backend, u32)>, Vec<usize>) {
    let mut next_id = old.map_or(1, |old| old.next_id);
    let mut known = old.map_or(&[][..], |old| &old.ids[..]).iter().peekable();
    let mut new = Vec::new();
    let ids = all.iter().enumerate().map(|(at, backend)| {
        // Both are sorted, and few differ as a rule.
        while known.next_if(|(other, _)| other < backend).is_some() {}
        if let Some(same) = known.next_if(|(other, _)| other == backend) {
            return *same;
        }
        new.push(at);
        next_id += 1;
        (*backend, next_id - 1)
    });
    (ids.collect(), new)
}

/// The numbers of the backends in slots: who stays keeps its slot while there
/// are as many.
fn slots(old: Option<&Row>, new: &Row) -> Vec<u32> {
    let (backends, none) = (&new.wanted.backends, <&[Backend]>::default());
    let before = old.map_or(none, |old| &old.wanted.backends);
    let slots = old.map_or(<&[u32]>::default(), |old| &old.slots);
    let numbers = |row: &Row, backends: Vec<Backend>| {
        let ids = backends.iter().filter_map(|backend| row.id(backend));
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        ids
    };
    let gone = only_in_first(before, backends);
    let gone = old.map_or(Vec::new(), |old| numbers(old, gone));
    let stays = |id: &u32| gone.binary_search(id).is_err();
    let (kept, behind) = slots.split_at(slots.len().min(backends.len()));
    // Who was behind the new end, and who is new.
    let mut rest = numbers(new, only_in_first(backends, before));
    rest.extend(behind.iter().filter(|id| stays(id)));
    rest.sort_unstable();
    let mut rest = rest.into_iter();
    let kept = kept.iter().map(|id| Some(*id).filter(stays));
    kept.chain(std::iter::repeat(None))
        .take(backends.len())
        .filter_map(|id| id.or_else(|| rest.next()))
        .collect()
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

/// What of the old row the new one does not have.
fn unused(old: Option<&Row>, new: &Row) -> Unused {
    let Some(old) = old else {
        return Unused::default();
    };
    let mut there = new.ids.iter().peekable();
    let gone = old.ids.iter().filter(|(backend, id)| {
        while there.next_if(|(other, _)| other < backend).is_some() {}
        there.next_if_eq(&&(*backend, *id)).is_none()
    });
    let key = |(_, id): &(Backend, u32)| BackendKey {
        set: old.set,
        id: *id,
    };
    let sources: BTreeSet<SourceKey> = new.sources().collect();
    Unused {
        backends: gone.map(key).collect(),
        sources: old.sources().filter(|key| !sources.contains(key)).collect(),
        slots: old.slots_keys().skip(new.slots_keys().count()).collect(),
        maglev: old.maglev_keys().skip(new.maglev_keys().count()).collect(),
    }
}

/// Of two sorted lists, without duplicates; sorted, too.
fn only_in_first(first: &[Backend], second: &[Backend]) -> Vec<Backend> {
    let mut second = second.iter().peekable();
    let only = first.iter().filter(|backend| {
        while second.next_if(|other| other < backend).is_some() {}
        second.next_if_eq(backend).is_none()
    });
    only.copied().collect()
}
