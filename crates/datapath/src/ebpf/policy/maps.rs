//! The tables of policies, beside those of [`super::super::maps`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY as ARRAY, BPF_MAP_TYPE_HASH as HASH, BPF_MAP_TYPE_LPM_TRIE as TRIE,
    BPF_MAP_TYPE_PERCPU_ARRAY as PER_CPU,
};
use ripstop_abi::{
    Address, ClassKey, Connection, ConnectionKey, DenialKey, DenialRow, Judgement, PairKey,
    PairRow, Place, Policing, PolicyPod, PolicyState, PortNode, ShareKey, policy_names as names,
};

use crate::Error;
use crate::ebpf::config::Limits;
use crate::ebpf::maps::{Form, NO_PREALLOC, of, scratch, sum_per_cpu};
use crate::ebpf::readback::Scope;
use crate::ebpf::table::{Mirror, Table};

#[derive(Debug)]
pub(crate) struct PolicyMaps {
    pub(crate) pods: Mirror<Address, PolicyPod>,
    pub(crate) classes: Mirror<ClassKey, u64>,
    pub(crate) pairs: Mirror<PairKey, PairRow>,
    pub(crate) ports: Mirror<u32, PortNode>,
    pub(crate) own: Mirror<Address, u32>,
    pub(crate) state: Table<u32, PolicyState>,
    /// Written by programs: connections that have no place.
    pub(crate) connections: Table<ConnectionKey, Connection>,
    pub(crate) places: Table<u32, Place>,
    pub(crate) denials: Table<DenialKey, DenialRow>,
    pub(crate) shares: Table<ShareKey, u32>,
    denials_lost: OwnedFd,
    policing: OwnedFd,
    judgements: OwnedFd,
}

pub(crate) const ALL: [&str; 13] = [
    names::PODS,
    names::CLASSES,
    names::PAIRS,
    names::PORTS,
    names::OWN,
    names::STATE,
    names::CONNECTIONS,
    names::PLACES,
    names::DENIALS,
    names::DENIALS_LOST,
    names::POLICING,
    names::SHARES,
    names::JUDGEMENTS,
];

/// So that each begins where a line of memory does: the kernel lays out by pages what
/// programs could map.
const MMAPABLE: u32 = 1 << 10;

/// Addresses of this node.
const OWN: u32 = 1024;

impl PolicyMaps {
    /// `map` is asked for the tables in the order of [`ALL`].
    pub(crate) fn collect(
        map: &mut impl FnMut(&'static str) -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        macro_rules! table {
            ($name:expr) => {
                Table::new($name, map($name)?)?
            };
        }
        Ok(Self {
            pods: Mirror::new(table!(names::PODS)),
            classes: Mirror::new(table!(names::CLASSES)),
            pairs: Mirror::new(table!(names::PAIRS)),
            ports: Mirror::new(table!(names::PORTS)),
            own: Mirror::new(table!(names::OWN)),
            state: table!(names::STATE),
            connections: table!(names::CONNECTIONS),
            places: table!(names::PLACES),
            denials: table!(names::DENIALS),
            denials_lost: map(names::DENIALS_LOST)?,
            policing: map(names::POLICING)?,
            shares: table!(names::SHARES),
            judgements: map(names::JUDGEMENTS)?,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        Some(match name {
            names::PODS => self.pods.as_fd(),
            names::CLASSES => self.classes.as_fd(),
            names::PAIRS => self.pairs.as_fd(),
            names::PORTS => self.ports.as_fd(),
            names::OWN => self.own.as_fd(),
            names::STATE => self.state.as_fd(),
            names::CONNECTIONS => self.connections.as_fd(),
            names::PLACES => self.places.as_fd(),
            names::DENIALS => self.denials.as_fd(),
            names::DENIALS_LOST => self.denials_lost.as_fd(),
            names::POLICING => self.policing.as_fd(),
            names::SHARES => self.shares.as_fd(),
            names::JUDGEMENTS => self.judgements.as_fd(),
            _ => return None,
        })
    }

    /// Takes what is in the kernel for what is known, of classes only if they are
    /// among what is read.
    pub(crate) fn read(&mut self, scope: Scope) -> Result<(), Error> {
        self.pods.read()?;
        if scope == Scope::All {
            self.classes.read()?;
        }
        self.pairs.read()?;
        self.ports.read()?;
        self.own.read()
    }

    /// Connections with their rows, wherever those are; some of them twice that end
    /// and begin right now.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn all_connections(&self) -> Result<Vec<(ConnectionKey, Connection)>, Error> {
        let mut rows = self.connections.rows()?;
        let places = self.places.rows()?.into_iter();
        rows.extend(places.filter_map(|(_, place)| place.connection()));
        Ok(rows)
    }

    /// Packets that were stopped and found no room among the denials.
    pub(crate) fn denials_lost(&self) -> io::Result<u64> {
        sum_per_cpu(self.denials_lost.as_fd(), 0)
    }
}

pub(crate) fn form(name: &str, limits: &Limits) -> Option<Form> {
    Some(match name {
        names::PODS => of::<Address, PolicyPod>(HASH, limits.endpoints, NO_PREALLOC),
        names::CLASSES => of::<ClassKey, u64>(TRIE, limits.policy_classes, NO_PREALLOC),
        names::PAIRS => of::<PairKey, PairRow>(HASH, limits.policy_pairs, NO_PREALLOC),
        names::PORTS => of::<u32, PortNode>(HASH, limits.policy_ports, NO_PREALLOC),
        names::OWN => of::<Address, u32>(HASH, OWN, NO_PREALLOC),
        names::STATE => of::<u32, PolicyState>(ARRAY, 1, 0),
        names::CONNECTIONS => {
            of::<ConnectionKey, Connection>(HASH, limits.connections, NO_PREALLOC)
        }
        names::PLACES => of::<u32, Place>(ARRAY, limits.places, MMAPABLE),
        names::DENIALS => of::<DenialKey, DenialRow>(HASH, limits.denials, NO_PREALLOC),
        names::DENIALS_LOST => of::<u32, u64>(PER_CPU, 1, 0),
        names::POLICING => scratch::<Policing>(1),
        names::JUDGEMENTS => scratch::<Judgement>(Judgement::SLOTS),
        // Both ways of each pod.
        names::SHARES => of::<ShareKey, u32>(HASH, 2 * limits.endpoints, NO_PREALLOC),
        _ => return None,
    })
}
