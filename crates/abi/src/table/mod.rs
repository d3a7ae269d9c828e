//! Keys and values of the kernel's tables.
//!
//! All are `repr(C)` without implicit padding: the kernel compares keys as bytes.

mod flow;
mod link;
mod part;
mod ports;
mod service;
mod socket;

pub use flow::{
    FLOW_AWAITED, FLOW_CLOSING, FLOW_LEAVES, FLOW_LINGERS, FLOW_RENUMBERED, FLOW_REPLY,
    FLOW_TRACKS_BACKEND, FLOWS_EACH, Flow, FlowKey, NO_SHARE, Work, flow_patience,
};
pub use link::{
    Endpoint, HANDED_OVER, RANGE_EXCLUDED, RANGE_NODE, RANGE_OUTSIDE, RANGE_PODS, RANGE_SERVICES,
    RETIRED, Route, RouteKey, Uplink,
};
pub(crate) use link::{RENUMBERED, TRACKED, TRANSLATED};
pub use part::{Part, PartKey};
pub use ports::{FlowPorts, Gap};
pub use service::{
    Affinity, AffinityKey, BACKENDS_PER_SLOTS, Backend, BackendKey, BackendRow, FLAG_HOST_ONLY,
    FLAG_HOST_PORT, FLAG_LOCAL, FLAG_MAGLEV, FLAG_RANGES, Frontend, MAGLEV_CHUNK, MaglevRow,
    ServiceAddress, Slots, SlotsKey, SourceKey,
};
pub use socket::{Led, ReverseKey, SOCKET_CONNECTED, SOCKET_UNCONNECTED, SocketState};

use crate::Address;

/// Version of everything in these files; change it with any meaning. Tables of
/// another version, or of other fields, are carried over into new ones field by
/// field (see [`crate::Layout`]).
pub const SCHEMA: u32 = 13 + NEXT as u32;

/// What the version that does not exist has more.
const NEXT: usize = if cfg!(feature = "next-layout") { 4 } else { 0 };

/// A type that is a table's key or value: any of its bytes may be anything.
///
/// # Safety
/// `repr(C)`, no padding, no invalid bit patterns.
pub unsafe trait TableRow: Copy + Sync + 'static {
    /// The row as user space wrote it: without what programs note in it.
    #[must_use]
    fn settled(self) -> Self {
        self
    }
}

/// Rows with their sizes in bytes.
macro_rules! table_rows {
    ($($type:ty: $size:expr),+ $(,)?) => {$(
        // SAFETY: plain integers throughout; without padding, as the sum of its
        // fields' sizes is the size that is asserted here.
        unsafe impl $crate::TableRow for $type {}
        const _: () = assert!(size_of::<$type>() == $size);
    )+};
}
pub(crate) use table_rows;

table_rows! {
    Address: 16,
    ServiceAddress: 20,
    Frontend: 56,
    SlotsKey: 8,
    Slots: 32,
    MaglevRow: 512,
    BackendKey: 8,
    Backend: 20,
    BackendRow: 40,
    AffinityKey: 20,
    Affinity: 8,
    SourceKey: 24,
    RouteKey: 20,
    Route: 24,
    FlowKey: 40,
    Flow: 60 + NEXT,
    PartKey: 20,
    Part: 48,
    Work: 304 + 2 * NEXT,
    ReverseKey: 28,
    Led: 28,
    SocketState: 52,
    Config: 48,
    u32: 4,
    u64: 8,
}

// SAFETY: as for the others; what programs note is its flag.
unsafe impl TableRow for Endpoint {
    fn settled(self) -> Self {
        self.without_notes()
    }
}
const _: () = assert!(size_of::<Endpoint>() == 12);

// SAFETY: likewise.
unsafe impl TableRow for Uplink {
    fn settled(self) -> Self {
        self.without_flags()
    }
}
const _: () = assert!(size_of::<Uplink>() == 36);

/// Names of the tables, in the object and as pins. At most 15 bytes.
pub mod names {
    /// [`super::Address`] -> [`super::Endpoint`].
    pub const ENDPOINTS: &str = "endpoints";
    /// [`super::ServiceAddress`] -> [`super::Frontend`].
    pub const FRONTENDS: &str = "frontends";
    /// [`super::SlotsKey`] -> [`super::Slots`], of frontends with many backends.
    pub const SLOTS: &str = "slots";
    /// [`super::SlotsKey`] -> [`super::MaglevRow`].
    pub const MAGLEV: &str = "maglev";
    /// [`super::BackendKey`] -> [`super::BackendRow`].
    pub const BACKENDS: &str = "backends";
    /// [`super::AffinityKey`] -> [`super::Affinity`], least recently used goes
    /// first.
    pub const AFFINITY: &str = "affinity";
    /// [`super::SourceKey`] -> one, longest prefix first.
    pub const SOURCES: &str = "sources";
    /// [`super::RouteKey`] -> [`super::Route`], longest prefix first.
    pub const ROUTES: &str = "routes";
    /// [`super::RouteKey`] -> one of `RANGE_*`, longest prefix first.
    pub const RANGES: &str = "ranges";
    /// Interface index -> [`super::Uplink`]; 0 is the node.
    pub const UPLINKS: &str = "uplinks";
    /// [`super::FlowKey`] -> [`super::Flow`].
    pub const FLOWS: &str = "flows";
    /// Index of a pod's link -> flows that it began; 0: whom no link is of. And a
    /// row of the agent's: see [`super::FLOWS_EACH`].
    pub const FLOW_SHARES: &str = "flow_shares";
    /// [`super::ReverseKey`] -> [`super::ServiceAddress`], least recently used
    /// goes first.
    pub const REVERSE: &str = "reverse";
    /// [`super::ReverseKey`] -> [`super::Led`], for TCP: a table of its own, so that
    /// who connects a lot takes no datagrams' names away. A row goes with its
    /// connection, or when it is the least recently used.
    pub const NAMES: &str = "names";
    /// As [`REVERSE`], for connected datagram sockets of the node's own processes:
    /// user space finds those by it whose backend has gone.
    pub const CONNECTED: &str = "connected";
    /// Socket -> [`super::SocketState`]; ends with the socket.
    pub const SOCKETS: &str = "sockets";
    /// [`super::PartKey`] -> [`super::Part`], least recently used goes first.
    pub const PARTS: &str = "parts";
    /// One [`super::Work`] per CPU.
    pub const WORK: &str = "work";
    /// What time it was at which tick -> u64 per CPU.
    pub const CLOCK: &str = "clock";
    /// [`super::DropReason`](crate::DropReason) -> u64 per CPU.
    pub const DROPS: &str = "drops";
}

/// Constants of one node, in the programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `SO_NETNS_COOKIE` of the node's own network namespace.
    pub node_netns: u64,
    /// From which translated flows leave.
    pub ports: FlowPorts,
    /// Those of them that the nftables engine never gives.
    pub own_ports: FlowPorts,
    /// The kernel has `bpf_set_retval` (5.18). Without it a refused system call
    /// fails with `EPERM`, whatever the reason.
    pub says_why: u32,
    pub reserved: u32,
}
