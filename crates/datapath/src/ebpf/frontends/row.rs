//! A frontend: as it should be, and as it is in the kernel.

use std::sync::Arc;

use ripstop_abi::{
    BACKENDS_PER_SLOTS, Backend, FLAG_HOST_PORT, FLAG_LOCAL, FLAG_MAGLEV, FLAG_RANGES, Frontend,
    MAGLEV_CHUNK, MaglevRow, RouteKey, Slots, SlotsKey, SourceKey,
};

use crate::ebpf::maglev;

/// Where a frontend should lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Sorted. Shared by all frontends of a service port.
    pub(crate) backends: Arc<[Backend]>,
    /// For who is not on this node and keeps its address. Sorted.
    pub(crate) outside: Option<Arc<[Backend]>>,
    /// Seconds; 0 is none.
    pub(crate) affinity: u32,
    /// Sorted.
    pub(crate) sources: Vec<RouteKey>,
    /// `FLAG_*` that do not follow from the other fields.
    pub(crate) kind: u16,
}

impl Wanted {
    pub(super) fn flags(&self) -> u16 {
        let local = if self.outside.is_some() {
            FLAG_LOCAL
        } else {
            0
        };
        let ranges = if self.sources.is_empty() {
            0
        } else {
            FLAG_RANGES
        };
        self.kind | local | ranges
    }

    pub(super) fn to_outside(&self) -> &Arc<[Backend]> {
        self.outside.as_ref().unwrap_or(&self.backends)
    }

    /// Those for inside and outside. Sorted, without duplicates.
    pub(super) fn all_backends(&self) -> Arc<[Backend]> {
        let Some(outside) = self.outside.as_ref().filter(|own| **own != self.backends) else {
            return self.backends.clone();
        };
        let mut all = [&self.backends[..], outside].concat();
        all.sort_unstable();
        all.dedup();
        all.into()
    }
}

/// A frontend as it is in the kernel. Copies are cheap.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) set: u32,
    pub(super) wanted: Wanted,
    /// Each backend with its number, sorted by backend.
    pub(super) ids: Arc<[(Backend, u32)]>,
    pub(super) slots: Arc<[u32]>,
    pub(super) next_id: u32,
    /// Nothing of it is missing or twice.
    pub(super) intact: bool,
}

impl Row {
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.intact && self.wanted == *wanted
    }

    /// Whether those for outside are the same, and nothing else is in the kernel.
    pub(super) fn has_one_list(&self) -> bool {
        let backends = &self.wanted.backends;
        *self.wanted.to_outside() == *backends && self.ids.len() == backends.len()
    }

    pub(super) fn is_host_port(&self) -> bool {
        self.wanted.kind & FLAG_HOST_PORT != 0
    }

    pub(super) fn id(&self, backend: &Backend) -> Option<u32> {
        let at = self.ids.binary_search_by_key(backend, |(known, _)| *known);
        at.ok().map(|at| self.ids[at].1)
    }

    /// The frontend's own row.
    pub(super) fn frontend(&self) -> Frontend {
        let outside = self.wanted.to_outside().len() as u16;
        Frontend::new(self.set, self.slots.len() as u16, self.wanted.flags())
            .with_affinity(self.wanted.affinity)
            .with_outside(outside, self.maglev_entries())
            .with_slots(&self.slots)
    }

    fn maglev_entries(&self) -> u16 {
        if self.wanted.kind & FLAG_MAGLEV == 0 {
            return 0;
        }
        maglev::size(self.wanted.to_outside().len())
    }

    pub(super) fn slots_keys(&self) -> impl Iterator<Item = SlotsKey> {
        let chunks = in_rows(&self.slots)
            .len()
            .div_ceil(BACKENDS_PER_SLOTS as usize);
        (0..chunks).map(|chunk| self.slots_key(chunk))
    }

    pub(super) fn maglev_keys(&self) -> impl Iterator<Item = SlotsKey> {
        let chunks = u32::from(self.maglev_entries()).div_ceil(MAGLEV_CHUNK);
        (0..chunks as usize).map(|chunk| self.slots_key(chunk))
    }

    pub(super) fn slots_key(&self, chunk: usize) -> SlotsKey {
        SlotsKey {
            set: self.set,
            chunk: chunk as u32,
        }
    }

    pub(super) fn slot_chunks(&self) -> Vec<Slots> {
        chunks_of_slots(&self.slots)
    }

    pub(super) fn maglev_chunks(&self, tables: &mut maglev::Tables) -> Vec<MaglevRow> {
        if self.maglev_entries() == 0 {
            return Vec::new();
        }
        let backends = self.wanted.to_outside();
        let ids: Vec<u32> = if backends.len() == self.ids.len() {
            self.ids.iter().map(|(_, id)| *id).collect()
        } else {
            backends.iter().filter_map(|b| self.id(b)).collect()
        };
        let entries = maglev::table(backends, tables);
        let chunks = entries.chunks(MAGLEV_CHUNK as usize);
        chunks
            .map(|entries| {
                let mut row = MaglevRow([0; MAGLEV_CHUNK as usize]);
                for (place, index) in row.0.iter_mut().zip(entries) {
                    *place = ids[usize::from(*index)];
                }
                row
            })
            .collect()
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = SourceKey> {
        self.wanted.sources.iter().map(|range| SourceKey {
            prefix_len: 32 + range.prefix_len,
            set: self.set.to_be(),
            address: range.address,
        })
    }
}

/// Those slots that are in rows of their own.
fn in_rows(slots: &[u32]) -> &[u32] {
    if slots.len() <= BACKENDS_PER_SLOTS as usize {
        &[]
    } else {
        slots
    }
}

/// The rows of these slots.
pub(super) fn chunks_of_slots(slots: &[u32]) -> Vec<Slots> {
    let chunks = in_rows(slots).chunks(BACKENDS_PER_SLOTS as usize);
    chunks
        .map(|ids| {
            let mut slots = Slots::default();
            slots.0[..ids.len()].copy_from_slice(ids);
            slots
        })
        .collect()
}
