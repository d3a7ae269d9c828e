//! Keys and values of the kernel's tables.
//!
//! All are `repr(C)` without implicit padding: the kernel compares keys as bytes.

use crate::{Address, Port};

/// Version of everything in this file. A kernel that holds tables of another
/// version gets new ones; change it with any layout or meaning.
pub const SCHEMA: u32 = 1;

/// A type that is a table's key or value: any of its bytes may be anything.
///
/// # Safety
/// `repr(C)`, no padding, no invalid bit patterns.
pub unsafe trait TableRow: Copy + 'static {}

macro_rules! table_rows {
    ($($type:ty: $size:literal),+ $(,)?) => {$(
        // SAFETY: plain integers throughout; without padding, as the sum of its
        // fields' sizes is the size that is asserted here.
        unsafe impl TableRow for $type {}
        const _: () = assert!(size_of::<$type>() == $size);
    )+};
}

table_rows! {
    Address: 16,
    Endpoint: 12,
    ServiceAddress: 20,
    Frontend: 8,
    BackendKey: 8,
    Backend: 20,
    RouteKey: 20,
    Route: 24,
    HostPortTarget: 32,
    FlowKey: 40,
    Flow: 24,
    ReverseKey: 28,
    SocketState: 48,
    Config: 8,
    u32: 4,
    u64: 8,
}

/// Names of the tables, in the object and as pins. At most 15 bytes.
pub mod names {
    /// [`super::Address`] -> [`super::Endpoint`].
    pub const ENDPOINTS: &str = "endpoints";
    /// [`super::ServiceAddress`] -> [`super::Frontend`].
    pub const FRONTENDS: &str = "frontends";
    /// [`super::BackendKey`] -> [`super::Backend`].
    pub const BACKENDS: &str = "backends";
    /// [`super::RouteKey`] -> [`super::Route`], longest prefix first.
    pub const ROUTES: &str = "routes";
    /// [`super::ServiceAddress`] -> [`super::HostPortTarget`].
    pub const HOST_PORTS: &str = "host_ports";
    /// [`super::FlowKey`] -> [`super::Flow`], least recently used goes first.
    pub const FLOWS: &str = "flows";
    /// [`super::ReverseKey`] -> [`super::ServiceAddress`], least recently used
    /// goes first.
    pub const REVERSE: &str = "reverse";
    /// Socket -> [`super::SocketState`]; ends with the socket.
    pub const SOCKETS: &str = "sockets";
    /// [`super::DropReason`](crate::DropReason) -> u64 per CPU.
    pub const DROPS: &str = "drops";
}

/// A pod of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host's end of the pod's link.
    pub ifindex: u32,
    /// Of the pod's end, as words in the order in which they are sent.
    mac: [u16; 3],
    reserved: u16,
}

impl Endpoint {
    pub const fn new(ifindex: u32, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = [
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ];
        Self {
            ifindex,
            mac,
            reserved: 0,
        }
    }

    #[inline(always)]
    pub(crate) const fn mac(&self) -> [u16; 3] {
        self.mac
    }
}

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
/// Frontend that a pod's host port made, and no service. Programs do not care.
pub const FLAG_HOST_PORT: u16 = 2;

/// Where a frontend leads. One word, so that a reader never sees the service of
/// one generation with the count of another.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend(u64);

impl Frontend {
    /// `service`: first half of the keys of its backends, which are in slots 0
    /// to `count` - 1.
    #[inline(always)]
    pub const fn new(service: u32, count: u16, flags: u16) -> Self {
        Self(service as u64 | (count as u64) << 32 | (flags as u64) << 48)
    }
    #[inline(always)]
    pub const fn service(self) -> u32 {
        self.0 as u32
    }
    #[inline(always)]
    pub const fn count(self) -> u16 {
        (self.0 >> 32) as u16
    }
    #[inline(always)]
    pub const fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    pub service: u32,
    pub slot: u32,
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

/// Prefix of a pod range; the length counts the 96 bits before an IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    pub prefix_len: u32,
    pub address: Address,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub ifindex: u32,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    pub gateway: Address,
}

/// The pod behind a port of the node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPortTarget {
    pub backend: Backend,
    pub endpoint: Endpoint,
}

/// A flow through a host port as the pod's answers name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub pod: Address,
    pub client: Address,
    pub pod_port: Port,
    pub client_port: Port,
    pub protocol: u32,
}

/// Whom the client of a flow believes to talk to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub node: Address,
    /// The link by which the client's packets come.
    pub ifindex: u32,
    pub node_port: Port,
    pub reserved: u16,
}

/// A backend that an unconnected UDP socket sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseKey {
    /// The socket's cookie, in two halves to keep the alignment at four.
    pub cookie: [u32; 2],
    pub backend: Backend,
}

/// [`SocketState::flags`]: connected to `backend` by the name of `frontend`.
pub const SOCKET_CONNECTED: u32 = 1;
/// [`SocketState::flags`]: sent last to `frontend` without being connected, and
/// has rows in the reverse table.
pub const SOCKET_UNCONNECTED: u32 = 2;

/// What a socket remembers of the service that it was led away from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    pub frontend: ServiceAddress,
    pub backend: Backend,
    /// Of the frontend when the backend was chosen.
    pub service: u32,
    pub flags: u32,
}

/// Constants of one node, in the programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `SO_NETNS_COOKIE` of the node's own network namespace.
    pub node_netns: u64,
}
