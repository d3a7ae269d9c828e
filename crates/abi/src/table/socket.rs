//! What sockets remember.

use super::{Backend, BackendKey, ServiceAddress};
use crate::layout::layout;

/// A backend that a socket was led to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseKey {
    /// The socket's cookie, in two halves to keep the alignment at four.
    pub cookie: [u32; 2],
    pub backend: Backend,
}

/// What a TCP socket is connected to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    /// As the application named it.
    pub frontend: ServiceAddress,
    pub backend: BackendKey,
}

/// [`SocketState::flags`]: connected to `backend` by the name of `frontend`.
pub const SOCKET_CONNECTED: u32 = 1;
/// [`SocketState::flags`]: sent last to `frontend` without being connected, and
/// has rows in the reverse table.
pub const SOCKET_UNCONNECTED: u32 = 2;

/// What a UDP socket remembers of the service that it was led away from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    pub frontend: ServiceAddress,
    pub backend: Backend,
    /// Key of the backend that was chosen.
    pub set: u32,
    pub id: u32,
    pub flags: u32,
}

layout! {
    ReverseKey { cookie, backend }
    Led { frontend, backend }
    SocketState { frontend, backend, set, id, flags }
}
