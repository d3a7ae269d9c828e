//! Frontends and what they lead to.

use crate::layout::layout;
use crate::{Address, Port};

/// Address, port and protocol: a service's frontend, or a port of the node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAddress {
    pub address: Address,
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    pub reserved: u8,
}

impl ServiceAddress {
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            reserved: 0,
        }
    }
}

/// Frontend only for processes in the node's own network namespace: elsewhere
/// its address (127.0.0.1) is somebody else's.
pub const FLAG_HOST_ONLY: u16 = 1;
/// Frontend that a pod's host port made, and no service.
pub const FLAG_HOST_PORT: u16 = 2;
/// Packets from outside go to backends of their own, on this node, and keep
/// their client's address.
pub const FLAG_LOCAL: u16 = 4;
/// Only clients in its source ranges may reach it.
pub const FLAG_RANGES: u16 = 8;
/// Clients from outside are spread by a Maglev table.
pub const FLAG_MAGLEV: u16 = 16;

/// Backends are named in the frontend's own row.
const FLAG_HOLDS: u16 = 32;

/// Where a frontend leads. In words that are each of use alone: a reader may
/// see one before and one after an update.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    set: u32,
    #[cfg(feature = "next-layout")]
    affinity: u32,
    count: u16,
    flags: u16,
    /// Seconds; 0 is none.
    #[cfg(not(feature = "next-layout"))]
    affinity: u32,
    outside: u16,
    maglev: u16,
    /// The backends, if they are no more than fit.
    slots: Slots,
    /// Connections and packets that found nobody. Programs count.
    pub refused: u64,
}

impl Frontend {
    /// `set`: first half of the keys of its slots and backends; `count`: slots
    /// for who is on this node.
    pub const fn new(set: u32, count: u16, flags: u16) -> Self {
        Self {
            set,
            count,
            flags,
            affinity: 0,
            outside: 0,
            maglev: 0,
            slots: Slots([0; BACKENDS_PER_SLOTS as usize]),
            refused: 0,
        }
    }

    /// `ids`: second halves of the keys of its backends. Few are named in the
    /// frontend's own row; more are in rows of slots.
    #[must_use]
    pub fn with_slots(mut self, ids: &[u32]) -> Self {
        if let Some(slots) = self.slots.0.get_mut(..ids.len()) {
            slots.copy_from_slice(ids);
            self.flags |= FLAG_HOLDS;
        }
        self
    }

    /// The backends, if they are named here. (By a flag and not by their number:
    /// the compiler would then leave out what shows the verifier that a slot is
    /// one of these.)
    #[inline(always)]
    pub const fn slots(&self) -> Option<&Slots> {
        if self.flags & FLAG_HOLDS != 0 {
            Some(&self.slots)
        } else {
            None
        }
    }

    #[must_use]
    pub const fn with_affinity(self, seconds: u32) -> Self {
        Self {
            affinity: seconds,
            ..self
        }
    }

    /// `outside`: backends for who is not on this node; `maglev`: entries of
    /// the table by which they are chosen, 0 for none.
    #[must_use]
    pub const fn with_outside(self, outside: u16, maglev: u16) -> Self {
        Self {
            outside,
            maglev,
            ..self
        }
    }

    /// As it was written first.
    #[must_use]
    pub const fn without_counts(self) -> Self {
        Self { refused: 0, ..self }
    }

    #[inline(always)]
    pub const fn set(&self) -> u32 {
        self.set
    }
    #[inline(always)]
    pub const fn count(&self) -> u16 {
        self.count
    }
    #[inline(always)]
    pub const fn flags(&self) -> u16 {
        self.flags
    }
    #[inline(always)]
    pub const fn affinity(&self) -> u32 {
        self.affinity
    }
    #[inline(always)]
    pub const fn outside(&self) -> u16 {
        self.outside
    }
    #[inline(always)]
    pub const fn maglev(&self) -> u16 {
        self.maglev
    }
}

/// Backends that one row of slots names, or a frontend's own.
pub const BACKENDS_PER_SLOTS: u32 = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotsKey {
    pub set: u32,
    /// Number of the first slot, divided by the slots of a row.
    pub chunk: u32,
}

/// Second halves of the keys of backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots(pub [u32; BACKENDS_PER_SLOTS as usize]);

/// Entries of one row of a Maglev table.
pub const MAGLEV_CHUNK: u32 = 128;

/// A part of a Maglev table: second halves of the keys of backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaglevRow(pub [u32; MAGLEV_CHUNK as usize]);

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    pub set: u32,
    /// Never used again in its set: while the row is there the backend is one
    /// of the frontend's, and what was led to it may stay.
    pub id: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub address: Address,
    pub port: Port,
    pub reserved: u16,
}

impl Backend {
    #[inline(always)]
    pub const fn new(address: Address, port: Port) -> Self {
        Self {
            address,
            port,
            reserved: 0,
        }
    }
}

/// A backend of a set, with what programs count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendRow {
    pub connections: u64,
    /// Payload in both directions. Of connections that a socket was led to: when
    /// they end, what the kernel says was acknowledged and received (the SYN and
    /// each FIN count one). Of flows that are led by packets: as they come, at
    /// most a second late; what is sent again counts again. Datagrams of sockets
    /// that were led are not counted.
    pub bytes: u64,
    pub backend: Backend,
    pub reserved: u32,
}

impl BackendRow {
    pub const fn new(backend: Backend) -> Self {
        Self {
            connections: 0,
            bytes: 0,
            backend,
            reserved: 0,
        }
    }
}

/// A client that keeps its backend: by address, or, for sockets of this node,
/// by network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    pub client: Address,
    pub set: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Second half of the backend's key.
    pub id: u32,
    /// When the last connection began, seconds since boot.
    pub last: u32,
}

/// A range of clients of a set of backends; the length counts the set's 32 bits
/// and the 96 before an IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    pub prefix_len: u32,
    /// In network order, as prefixes are.
    pub set: u32,
    pub address: Address,
}

layout! {
    ServiceAddress { address, port, protocol, reserved }
    Frontend { set, count, flags, affinity, outside, maglev, slots, refused }
    SlotsKey { set, chunk }
    Slots { 0 }
    MaglevRow { 0 }
    BackendKey { set, id }
    BackendRow { connections, bytes, backend, reserved }
    AffinityKey { client, set }
    Affinity { id, last }
    SourceKey { prefix_len, set, address }
}
