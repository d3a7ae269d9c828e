//! Services at the socket: which backend a connection gets, and under which
//! name its answers are shown.

use crate::table::{
    Backend, BackendKey, FLAG_HOST_ONLY, Frontend, SOCKET_CONNECTED, SOCKET_UNCONNECTED,
    ServiceAddress, SocketState,
};
use crate::verdict::DropReason;
use crate::{Address, Port};

/// The tables that destinations are looked up in, and what the caller's context
/// knows.
pub trait Services {
    fn frontend(&self, address: &ServiceAddress) -> Option<Frontend>;
    fn backend(&self, key: &BackendKey) -> Option<Backend>;
    /// The socket is in the node's own network namespace.
    fn in_node_netns(&self) -> bool;
    fn random(&self) -> u32;
}

/// What becomes of a destination.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Not a service: as the application said.
    Keep,
    /// This backend of this service.
    Backend {
        service: u32,
        backend: Backend,
    },
    Refuse(DropReason),
}

/// Lookups of a frontend before its backend counts as missing. An update moves
/// a frontend to a new generation of backends and then removes the old one, so
/// who read the row just before finds the new one when reading again.
const ATTEMPTS: usize = 3;

/// Chooses a backend for a destination, each with equal probability.
///
/// `last`: what an unconnected socket sent to before. Datagrams of one socket
/// to one service stay with one backend until the service changes.
#[inline(always)]
pub fn choose(
    services: &impl Services,
    destination: &ServiceAddress,
    last: Option<&SocketState>,
) -> Choice {
    for _ in 0..ATTEMPTS {
        let Some(frontend) = services.frontend(destination) else {
            return Choice::Keep;
        };
        if frontend.flags() & FLAG_HOST_ONLY != 0 && !services.in_node_netns() {
            return Choice::Keep;
        }
        if frontend.count() == 0 {
            return Choice::Refuse(DropReason::NoBackends);
        }
        let service = frontend.service();
        if let Some(last) = last
            && last.flags & SOCKET_UNCONNECTED != 0
            && last.service == service
            && last.frontend == *destination
        {
            return Choice::Backend {
                service,
                backend: last.backend,
            };
        }
        let slot = slot(services.random(), frontend.count());
        if let Some(backend) = services.backend(&BackendKey { service, slot }) {
            return Choice::Backend { service, backend };
        }
    }
    Choice::Refuse(DropReason::BackendMissing)
}

/// A random word scaled to 0 .. count - 1.
#[inline(always)]
const fn slot(random: u32, count: u16) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// The service's address that an application is to see instead of its
/// connection's peer; `None` if it sees the right one already.
#[inline(always)]
pub fn original(state: &SocketState, peer: (Address, Port)) -> Option<(Address, Port)> {
    (state.flags & SOCKET_CONNECTED != 0
        && state.backend.port == peer.1
        && state.backend.address == peer.0)
        .then_some((state.frontend.address, state.frontend.port))
}

#[cfg(test)]
mod tests;
