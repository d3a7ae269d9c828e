//! Frontends as the kernel has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ripstop_abi::{
    BACKENDS_PER_SLOTS, Backend, BackendKey, BackendRow, FLAG_HOST_ONLY, FLAG_HOST_PORT,
    FLAG_LOCAL, FLAG_MAGLEV, Flow, Frontend, MAGLEV_CHUNK, MaglevRow, RouteKey, ServiceAddress,
    Slots, SlotsKey, SourceKey,
};

use super::Frontends;
use super::room::Room;
use super::row::{Row, Wanted};
use crate::Error;
use crate::ebpf::maglev;
use crate::ebpf::maps::Maps;

/// All rows of all tables that frontends lead to.
struct Everything {
    frontends: Vec<(ServiceAddress, Frontend)>,
    slots: BTreeMap<SlotsKey, Slots>,
    maglev: BTreeMap<SlotsKey, MaglevRow>,
    backends: BTreeMap<BackendKey, BackendRow>,
    sources: BTreeMap<u32, Vec<RouteKey>>,
}

impl Everything {
    fn read(maps: &Maps) -> Result<Self, Error> {
        let mut sources: BTreeMap<u32, Vec<RouteKey>> = BTreeMap::new();
        for (key, _) in maps.sources.rows()? {
            let range = RouteKey {
                prefix_len: key.prefix_len.saturating_sub(32),
                address: key.address,
            };
            sources
                .entry(u32::from_be(key.set))
                .or_default()
                .push(range);
        }
        sources
            .values_mut()
            .for_each(|ranges| ranges.sort_unstable());
        Ok(Self {
            frontends: maps.frontends.rows()?,
            slots: maps.slots.rows()?.into_iter().collect(),
            maglev: maps.maglev.rows()?.into_iter().collect(),
            backends: maps.backends.rows()?.into_iter().collect(),
            sources,
        })
    }

    /// The row that leads from there, taken out of all.
    fn row(&mut self, frontend: &Frontend, tables: &mut maglev::Tables) -> Row {
        let set = frontend.set();
        let mut intact = true;
        let keys = BackendKey { set, id: 0 }..=BackendKey { set, id: u32::MAX };
        let mut ids: Vec<(Backend, u32)> = self
            .backends
            .range(keys)
            .map(|(key, row)| (row.backend, key.id))
            .collect();
        let by_id: BTreeMap<u32, Backend> = ids.iter().map(|(b, id)| (*id, *b)).collect();
        ids.sort_unstable();
        intact &= ids.is_sorted_by(|a, b| a.0 < b.0);
        let slots: Vec<u32> = (0..u32::from(frontend.count()))
            .filter_map(|slot| {
                if let Some(slots) = frontend.slots() {
                    return slots.0.get(slot as usize).copied();
                }
                let chunk = slot / BACKENDS_PER_SLOTS;
                let chunk = self.slots.get(&SlotsKey { set, chunk })?;
                Some(chunk.0[(slot % BACKENDS_PER_SLOTS) as usize])
            })
            .collect();
        let mut backends: Vec<Backend> = slots
            .iter()
            .filter_map(|id| by_id.get(id))
            .copied()
            .collect();
        backends.sort_unstable();
        intact &= backends.len() == usize::from(frontend.count());
        intact &= backends.is_sorted_by(|a, b| a < b);
        let entries: BTreeSet<u32> = (0..u32::from(frontend.maglev()))
            .filter_map(|entry| {
                let chunk = entry / MAGLEV_CHUNK;
                let chunk = self.maglev.get(&SlotsKey { set, chunk })?;
                Some(chunk.0[(entry % MAGLEV_CHUNK) as usize])
            })
            .collect();
        let backends: Arc<[Backend]> = backends.into();
        let local = frontend.flags() & FLAG_LOCAL != 0;
        let outside = local.then(|| {
            if frontend.flags() & FLAG_MAGLEV == 0 {
                return backends.clone();
            }
            let mut outside: Vec<Backend> = entries
                .iter()
                .filter_map(|id| by_id.get(id))
                .copied()
                .collect();
            outside.sort_unstable();
            outside.into()
        });
        let kind = frontend.flags() & (FLAG_HOST_ONLY | FLAG_HOST_PORT | FLAG_MAGLEV);
        let mut row = Row {
            set,
            wanted: Wanted {
                backends,
                outside,
                affinity: frontend.affinity(),
                sources: self.sources.remove(&set).unwrap_or_default(),
                kind,
            },
            next_id: by_id.last_key_value().map_or(1, |(id, _)| id + 1),
            ids: ids.into(),
            slots: slots.into(),
            intact,
        };
        let expected = row.frontend();
        row.intact &= frontend.without_counts() == expected;
        for (chunk, expected) in row.maglev_chunks(tables).into_iter().enumerate() {
            row.intact &= self.maglev.remove(&row.slots_key(chunk)) == Some(expected);
        }
        for key in row.slots_keys() {
            self.slots.remove(&key);
        }
        for (_, id) in row.ids.iter() {
            self.backends.remove(&BackendKey { set, id: *id });
        }
        row
    }

    /// Removes what no frontend led to.
    fn remove_rest(self, maps: &Maps) -> Result<(), Error> {
        maps.slots
            .remove_all(&self.slots.into_keys().collect::<Vec<_>>())?;
        maps.maglev
            .remove_all(&self.maglev.into_keys().collect::<Vec<_>>())?;
        maps.backends
            .remove_all(&self.backends.into_keys().collect::<Vec<_>>())?;
        for (set, ranges) in self.sources {
            for range in ranges {
                maps.sources.remove(&SourceKey {
                    prefix_len: range.prefix_len + 32,
                    set: set.to_be(),
                    address: range.address,
                })?;
            }
        }
        Ok(())
    }
}

impl Frontends {
    /// Reads the kernel. What no frontend leads to is removed.
    pub(crate) fn read(maps: &Maps) -> Result<Self, Error> {
        let mut all = Everything::read(maps)?;
        let mut read = Self::default();
        for (address, frontend) in std::mem::take(&mut all.frontends) {
            read.last_set = read.last_set.max(frontend.set());
            let row = all.row(&frontend, &mut read.known.tables);
            read.room += Room::of(&row);
            read.rows.insert(address, row);
        }
        all.remove_rest(maps)?;
        Ok(read)
    }
}

/// All frontends with what programs counted.
pub(crate) fn states(maps: &Maps) -> Result<Vec<(ServiceAddress, State)>, Error> {
    let mut held: BTreeMap<u32, u64> = BTreeMap::new();
    for (key, _) in maps.affinity.rows()? {
        *held.entry(key.set).or_default() += 1;
    }
    // Before the backends: what moves there meanwhile is missed, not twice there.
    let mut pending: BTreeMap<BackendKey, u64> = BTreeMap::new();
    maps.flows.each_batch(4096, |rows| {
        for (_, Flow { set, id, bytes, .. }) in rows.iter().copied() {
            *pending.entry(BackendKey { set, id }).or_default() += u64::from(bytes);
        }
        Ok(())
    })?;
    let mut all = Everything::read(maps)?;
    let counted = all.backends.clone();
    let mut tables = maglev::Tables::default();
    let mut states = Vec::new();
    for (address, frontend) in std::mem::take(&mut all.frontends) {
        let row = all.row(&frontend, &mut tables);
        let set = row.set;
        let counts = row.ids.iter().map(|(backend, id)| {
            let key = BackendKey { set, id: *id };
            let counted = counted.get(&key);
            let counts = Counts {
                connections: counted.map_or(0, |row| row.connections),
                bytes: counted.map_or(0, |row| row.bytes) + pending.get(&key).unwrap_or(&0),
            };
            (*backend, counts)
        });
        let state = State {
            counts: counts.collect(),
            affinities_held: held.get(&set).copied().unwrap_or(0),
            refused: frontend.refused,
            wanted: row.wanted,
        };
        states.push((address, state));
    }
    Ok(states)
}

/// What programs counted of a backend.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
}

/// A frontend as the kernel has it.
pub(crate) struct State {
    pub(crate) wanted: Wanted,
    pub(crate) counts: BTreeMap<Backend, Counts>,
    pub(crate) affinities_held: u64,
    pub(crate) refused: u64,
}
