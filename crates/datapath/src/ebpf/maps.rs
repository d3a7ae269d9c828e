//! The tables of a node: made, pinned, adopted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_map_type;
use ripstop_abi::{
    Address, Affinity, AffinityKey, BACKENDS_PER_SLOTS, BackendKey, BackendRow, DropReason,
    Endpoint, Field, Flow, FlowKey, Frontend, Layout, Led, MaglevRow, Part, PartKey, ReverseKey,
    Route, RouteKey, SCHEMA, ServiceAddress, Slots, SlotsKey, SocketState, SourceKey, TableRow,
    Uplink, Work, names, policy_names,
};

use super::config::Limits;
use super::layout;
use super::old::OldTables;
use super::pins::Pins;
use super::policy::maps::{self as policy, PolicyMaps};
use super::readback::Scope;
use super::sys::{self, MapShape, MapTypes};
use super::table::{Mirror, Table};
use crate::Error;

/// Pin of the record of what the other pins are.
const STATE: &str = "state";

/// Every table that programs use, by name.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) endpoints: Mirror<Address, Endpoint>,
    pub(crate) frontends: Table<ServiceAddress, Frontend>,
    pub(crate) slots: Table<SlotsKey, Slots>,
    pub(crate) maglev: Table<SlotsKey, MaglevRow>,
    pub(crate) backends: Table<BackendKey, BackendRow>,
    pub(crate) sources: Table<SourceKey, u32>,
    pub(crate) routes: Mirror<RouteKey, Route>,
    pub(crate) ranges: Mirror<RouteKey, u32>,
    pub(crate) uplinks: Mirror<u32, Uplink>,
    /// Written by programs.
    pub(crate) flows: Table<FlowKey, Flow>,
    pub(crate) flow_shares: Table<u32, u32>,
    pub(crate) affinity: Table<AffinityKey, Affinity>,
    pub(crate) connected: Table<ReverseKey, ServiceAddress>,
    pub(crate) policy: PolicyMaps,
    reverse: OwnedFd,
    names: OwnedFd,
    sockets: OwnedFd,
    parts: OwnedFd,
    work: OwnedFd,
    clock: OwnedFd,
    drops: OwnedFd,
}

impl Maps {
    /// New, empty tables.
    pub(crate) fn create(limits: &Limits) -> Result<Self, Error> {
        Self::collect(|name| {
            let shape = form(name, limits).shape;
            create(name, &shape).map_err(|source| Error::Kernel {
                operation: format!("create table {name} ({} rows)", shape.max_entries),
                source,
            })
        })
    }

    /// New tables beside those of another version: empty, but for those that
    /// have to be the same because nobody can read all of their rows.
    pub(crate) fn create_beside(limits: &Limits, old: &OldTables) -> Result<Self, Error> {
        let at_first = limits.at_first();
        let limits = if old.fits(&at_first) {
            &at_first
        } else {
            limits
        };
        Self::collect(|name| {
            let form = form(name, limits);
            let shared = [names::SOCKETS, names::DROPS, policy_names::DENIALS_LOST];
            let same = shared.contains(&name).then(|| old.same(name, &form));
            let created = match same.flatten() {
                Some(map) => map.try_clone_to_owned(),
                None => create(name, &form.shape),
            };
            created.map_err(|source| Error::Kernel {
                operation: format!("create table {name} ({} rows)", form.shape.max_entries),
                source,
            })
        })
    }

    /// Pins them, in the place of any others. Whatever happens on the way, the
    /// pins are not a set until [`State`] is written.
    pub(crate) fn pin(&self, pins: &Pins) -> Result<(), Error> {
        State::remove(pins)?;
        for name in all() {
            pins.put(&pin(name), self.get(name))?;
        }
        layout::write(pins, &layout::describe())
    }

    /// The same tables, and in the place of those that are smaller new ones with
    /// their rows. `None` if none is smaller.
    pub(crate) fn grown(&self, limits: &Limits) -> Result<Option<Self>, Error> {
        let failed = |name: &str, source| Error::Kernel {
            operation: format!("let table {name} grow"),
            source,
        };
        let mut grew = false;
        let mut grown = Self::collect(|name| {
            let (now, wanted) = (self.get(name), form(name, limits).shape);
            if sys::map_shape(now).map_err(|error| failed(name, error))? == wanted {
                return now.try_clone_to_owned().map_err(|e| failed(name, e));
            }
            grew = true;
            create(name, &wanted).map_err(|error| failed(name, error))
        })?;
        if !grew {
            return Ok(None);
        }
        macro_rules! copy {
            ($($table:ident).+) => {
                grown.$($table).+.put_rows_of(&self.$($table).+)?
            };
        }
        copy!(frontends);
        copy!(slots);
        copy!(maglev);
        copy!(backends);
        copy!(policy.pairs);
        copy!(policy.ports);
        grown.endpoints.read()?;
        grown.routes.read()?;
        grown.ranges.read()?;
        grown.uplinks.read()?;
        grown.policy.read(Scope::All)?;
        Ok(Some(grown))
    }

    /// The pinned tables, if all are there and of the form that this version
    /// makes, grown or not.
    pub(crate) fn adopt(pins: &Pins, limits: &Limits) -> Result<Option<Self>, Error> {
        let same = State::read(pins)?.is_some_and(|state| state.schema == u64::from(SCHEMA))
            && layout::read(pins)? == Some(layout::describe());
        if !same {
            return Ok(None);
        }
        match Self::adopt_of(pins, &limits.at_first())? {
            None => Self::adopt_of(pins, limits),
            found => Ok(found),
        }
    }

    fn adopt_of(pins: &Pins, limits: &Limits) -> Result<Option<Self>, Error> {
        let mut found = Vec::new();
        for name in all() {
            let Some(map) = pins.get(&pin(name))? else {
                return Ok(None);
            };
            if sys::map_shape(map.as_fd()).ok() != Some(form(name, limits).shape) {
                return Ok(None);
            }
            found.push(map);
        }
        let mut found = found.into_iter();
        Self::collect(|_| {
            found.next().ok_or_else(|| Error::Kernel {
                operation: "adopt tables".into(),
                source: io::ErrorKind::NotFound.into(),
            })
        })
        .map(Some)
    }

    /// Makes the set; `map` is asked for the tables in the order of [`all`].
    fn collect(mut map: impl FnMut(&'static str) -> Result<OwnedFd, Error>) -> Result<Self, Error> {
        macro_rules! table {
            ($name:expr) => {
                Table::new($name, map($name)?)?
            };
        }
        Ok(Self {
            endpoints: Mirror::new(table!(names::ENDPOINTS)),
            frontends: table!(names::FRONTENDS),
            slots: table!(names::SLOTS),
            maglev: table!(names::MAGLEV),
            backends: table!(names::BACKENDS),
            sources: table!(names::SOURCES),
            routes: Mirror::new(table!(names::ROUTES)),
            ranges: Mirror::new(table!(names::RANGES)),
            uplinks: Mirror::new(table!(names::UPLINKS)),
            flows: table!(names::FLOWS),
            flow_shares: table!(names::FLOW_SHARES),
            affinity: table!(names::AFFINITY),
            connected: table!(names::CONNECTED),
            reverse: map(names::REVERSE)?,
            names: map(names::NAMES)?,
            sockets: map(names::SOCKETS)?,
            parts: map(names::PARTS)?,
            work: map(names::WORK)?,
            clock: map(names::CLOCK)?,
            drops: map(names::DROPS)?,
            policy: PolicyMaps::collect(&mut map)?,
        })
    }

    /// # Panics
    /// If there is no such table: names are ours.
    pub(crate) fn get(&self, name: &str) -> BorrowedFd<'_> {
        match name {
            names::ENDPOINTS => self.endpoints.as_fd(),
            names::FRONTENDS => self.frontends.as_fd(),
            names::SLOTS => self.slots.as_fd(),
            names::MAGLEV => self.maglev.as_fd(),
            names::BACKENDS => self.backends.as_fd(),
            names::SOURCES => self.sources.as_fd(),
            names::ROUTES => self.routes.as_fd(),
            names::RANGES => self.ranges.as_fd(),
            names::UPLINKS => self.uplinks.as_fd(),
            names::FLOWS => self.flows.as_fd(),
            names::FLOW_SHARES => self.flow_shares.as_fd(),
            names::AFFINITY => self.affinity.as_fd(),
            names::CONNECTED => self.connected.as_fd(),
            names::REVERSE => self.reverse.as_fd(),
            names::NAMES => self.names.as_fd(),
            names::SOCKETS => self.sockets.as_fd(),
            names::PARTS => self.parts.as_fd(),
            names::WORK => self.work.as_fd(),
            names::CLOCK => self.clock.as_fd(),
            names::DROPS => self.drops.as_fd(),
            other => {
                let found = self.policy.get(other);
                found.unwrap_or_else(|| panic!("no table {other}"))
            }
        }
    }

    /// Packets and connections dropped, over all CPUs.
    pub(crate) fn drops(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let of = |reason: DropReason| {
            let count = sum_per_cpu(self.drops.as_fd(), reason as u32)?;
            Ok((reason.name(), count))
        };
        DropReason::ALL.into_iter().map(of).collect()
    }
}

/// A counter of a table of counters, over all CPUs.
pub(crate) fn sum_per_cpu(map: BorrowedFd<'_>, index: u32) -> io::Result<u64> {
    let mut per_cpu = vec![0_u64; possible_cpus()?];
    // SAFETY: a value is one word for each possible CPU.
    unsafe { sys::map_lookup(map, &index, per_cpu.as_mut_slice())? };
    Ok(per_cpu.iter().sum())
}

/// Names of all tables.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().chain(policy::ALL)
}

const ALL: [&str; 20] = [
    names::ENDPOINTS,
    names::FRONTENDS,
    names::SLOTS,
    names::MAGLEV,
    names::BACKENDS,
    names::SOURCES,
    names::ROUTES,
    names::RANGES,
    names::UPLINKS,
    names::FLOWS,
    names::FLOW_SHARES,
    names::AFFINITY,
    names::CONNECTED,
    names::REVERSE,
    names::NAMES,
    names::SOCKETS,
    names::PARTS,
    names::WORK,
    names::CLOCK,
    names::DROPS,
];

/// Links that can be told apart by their addresses.
const UPLINKS: u32 = 256;

/// Packets in parts that are under way.
const PARTS: u32 = 4096;

/// Connected datagram sockets of the node's own processes, which are few.
const CONNECTED: u32 = 1024;

pub(crate) fn pin(name: &str) -> String {
    format!("map_{name}")
}

/// Rows take memory when they are written, not before.
pub(crate) const NO_PREALLOC: u32 = 1;

/// How a table is made, and what its rows are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) shape: MapShape,
    pub(crate) key: &'static [Field],
    /// None if nobody but programs knows, for the moment of a packet.
    pub(crate) value: &'static [Field],
}

pub(crate) const fn of<K: TableRow + Layout, V: TableRow + Layout>(
    kind: bpf_map_type,
    rows: u32,
    flags: u32,
) -> Form {
    Form {
        shape: MapShape {
            kind: kind as u32,
            key_size: size_of::<K>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries: rows,
            flags,
        },
        key: K::FIELDS,
        value: V::FIELDS,
    }
}

/// Values per CPU to work with.
pub(crate) const fn scratch<V: TableRow>(rows: u32) -> Form {
    let mut form = of::<u32, u32>(bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, rows, 0);
    form.shape.value_size = size_of::<V>() as u32;
    form.value = &[];
    form
}

/// How each table is made.
///
/// # Panics
/// If there is no such table: names are ours.
pub(crate) fn form(name: &str, limits: &Limits) -> Form {
    use bpf_map_type::{
        BPF_MAP_TYPE_HASH as HASH, BPF_MAP_TYPE_LPM_TRIE as TRIE, BPF_MAP_TYPE_LRU_HASH as LRU,
        BPF_MAP_TYPE_PERCPU_ARRAY as COUNTERS, BPF_MAP_TYPE_SK_STORAGE as SOCKETS,
    };
    match name {
        names::ENDPOINTS => of::<Address, Endpoint>(HASH, limits.endpoints, NO_PREALLOC),
        names::FRONTENDS => of::<ServiceAddress, Frontend>(HASH, limits.frontends, NO_PREALLOC),
        names::SLOTS => {
            // A frontend has the more rows of slots for its backends the fewer
            // they are: at least two for nine.
            let rows = limits.backends.div_ceil(BACKENDS_PER_SLOTS + 1) * 2;
            of::<SlotsKey, Slots>(HASH, rows, NO_PREALLOC)
        }
        names::MAGLEV => of::<SlotsKey, MaglevRow>(HASH, limits.maglev, NO_PREALLOC),
        names::BACKENDS => of::<BackendKey, BackendRow>(HASH, limits.backends, NO_PREALLOC),
        names::SOURCES => of::<SourceKey, u32>(TRIE, limits.sources, NO_PREALLOC),
        names::ROUTES => of::<RouteKey, Route>(TRIE, limits.routes, NO_PREALLOC),
        names::RANGES => of::<RouteKey, u32>(TRIE, limits.ranges, NO_PREALLOC),
        names::UPLINKS => of::<u32, Uplink>(HASH, UPLINKS, NO_PREALLOC),
        names::FLOWS => of::<FlowKey, Flow>(HASH, limits.flows, NO_PREALLOC),
        // Others, and a row of rules; pods may have one link and two addresses.
        names::FLOW_SHARES => of::<u32, u32>(HASH, limits.endpoints + 2, NO_PREALLOC),
        names::AFFINITY => of::<AffinityKey, Affinity>(LRU, limits.affinity, 0),
        names::CONNECTED => of::<ReverseKey, ServiceAddress>(LRU, CONNECTED, 0),
        names::REVERSE => of::<ReverseKey, ServiceAddress>(LRU, limits.reverse, 0),
        names::NAMES => of::<ReverseKey, Led>(LRU, limits.reverse, 0),
        names::PARTS => of::<PartKey, Part>(LRU, PARTS, 0),
        names::WORK => scratch::<Work>(1),
        names::CLOCK => scratch::<u64>(1),
        names::SOCKETS => of::<u32, SocketState>(SOCKETS, 0, NO_PREALLOC),
        names::DROPS => of::<u32, u64>(COUNTERS, DropReason::ALL.len() as u32, 0),
        other => policy::form(other, limits).unwrap_or_else(|| panic!("no table {other}")),
    }
}

fn create(name: &str, shape: &MapShape) -> io::Result<OwnedFd> {
    if name != names::SOCKETS {
        return sys::map_create(name, shape, None);
    }
    // The kernel takes storage for sockets only with type information.
    let btf = sys::btf_load(&socket_types())?;
    sys::map_create(
        name,
        shape,
        Some(MapTypes {
            btf: btf.as_fd(),
            key: 1,
            value: 2,
        }),
    )
}

/// BTF of two types: a word, and a structure of [`SocketState`]'s size.
fn socket_types() -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const STRUCT: u32 = 4 << 24;
    let strings = b"\0word\0state\0";
    let types = [
        [1, INT, 4, 32].as_slice(),
        &[6, STRUCT, size_of::<SocketState>() as u32],
    ]
    .concat();
    sys::btf(&types, strings)
}

/// What the other pins are: written last, removed before they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) schema: u64,
    /// Of the programs' object and constants.
    pub(crate) digest: u64,
}

impl State {
    pub(crate) fn read(pins: &Pins) -> Result<Option<Self>, Error> {
        let Some(map) = pins.get(STATE)? else {
            return Ok(None);
        };
        if sys::map_shape(map.as_fd()).ok() != Some(Self::SHAPE) {
            return Ok(None);
        }
        let mut value = [0_u64; 2];
        // SAFETY: the sizes were just compared.
        let read = unsafe { sys::map_lookup(map.as_fd(), &0_u32, &mut value) };
        let [schema, digest] = value;
        Ok(read.is_ok().then_some(Self { schema, digest }))
    }

    /// From here on the pins are not a set.
    pub(crate) fn remove(pins: &Pins) -> Result<(), Error> {
        pins.remove(STATE)
    }

    pub(crate) fn write(self, pins: &Pins) -> Result<(), Error> {
        let failed = |source| Error::Kernel {
            operation: "write the state record".into(),
            source,
        };
        let map = sys::map_create(STATE, &Self::SHAPE, None).map_err(failed)?;
        // SAFETY: the sizes are those of the shape.
        unsafe { sys::map_update(map.as_fd(), &0_u32, &[self.schema, self.digest]) }
            .map_err(failed)?;
        pins.put(STATE, map)
    }

    const SHAPE: MapShape = MapShape {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: 16,
        max_entries: 1,
        flags: 0,
    };
}

/// CPUs for which per-CPU tables have a value: also those that are not there.
fn possible_cpus() -> io::Result<usize> {
    let ranges = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = ranges
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1)
        .ok_or_else(|| io::Error::other(format!("cpu/possible says {ranges:?}")))
}
