//! What an engine's own tables in the kernel say, read back for people and for
//! another engine.

use std::net::SocketAddr;

use ipnet::IpNet;
use ripstop_model::Protocol;
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
    /// Bytes in both directions; `None` if the engine cannot say.
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
}
