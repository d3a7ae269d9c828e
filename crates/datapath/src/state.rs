//! What an engine's own tables in the kernel say, read back for people and for
//! another engine.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ripstop_model::Protocol;
use ripstop_plan::policy::{AttributionId, Direction};
use ripstop_plan::{Backend, Frontend};

/// A frontend as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendState {
    pub frontend: Frontend,
    /// For pods and processes of the node. Sorted.
    pub backends: Vec<BackendState>,
    /// Those that packets from outside get; `None` if they get the same.
    pub outside: Option<Vec<BackendState>>,
    /// For how many seconds after its last connection a client keeps its
    /// backend.
    pub affinity: Option<u32>,
    /// Clients that hold a backend now.
    pub affinities_held: u64,
    /// Who may reach it; everybody if empty. Sorted.
    pub source_ranges: Vec<IpNet>,
    /// Connections and packets refused or dropped for lack of a backend.
    pub refused: u64,
}

/// A backend of a frontend as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendState {
    pub backend: Backend,
    /// Connections that got it through this frontend since it became a backend.
    pub connections: u64,
    /// Payload in both directions, bytes; `None` if the engine cannot say. The eBPF
    /// engine: see [`ripstop_abi::BackendRow`] for what is counted when.
    pub bytes: Option<u64>,
}

/// A flow whose packets an engine translates one by one. (Those that were led
/// to a backend at the socket need nothing more.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TranslatedFlow {
    pub protocol: Protocol,
    pub client: SocketAddr,
    /// Whom the client sends to.
    pub frontend: SocketAddr,
    /// Who gets it; for a packet that leaves the cluster this is `frontend`.
    pub backend: SocketAddr,
    /// Whom the backend answers, if not the client: the node, on a port of its
    /// choice.
    pub source: Option<SocketAddr>,
    /// TCP of which a side has closed: the next connection of these ports is
    /// another one.
    pub is_closing: bool,
}

/// Packets that policies stopped, by who and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// Of this node: the one whose policies denied it.
    pub pod: IpAddr,
    pub direction: Direction,
    pub other: IpAddr,
    /// As in the IP header.
    pub protocol: u8,
    /// The destination's; 0 where there are none.
    pub port: u16,
    /// `None` if the engine cannot say: the plan can.
    pub by: Option<AttributionId>,
    pub packets: u64,
}

/// All denials that are counted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    pub rows: Vec<Denial>,
    /// Packets that were stopped and have no row: the table was full.
    pub lost: u64,
}

/// A connection after translation: who opened it, and who really answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// As in the IP header.
    pub protocol: u8,
    /// Its own address, also where the server sees the node's. Ports are 0
    /// where the protocol has none.
    pub client: SocketAddr,
    pub server: SocketAddr,
}
