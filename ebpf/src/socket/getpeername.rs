//! `getpeername()`: a connection's other end is the service.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{Backend, original};

use super::{Exit, Family, Socket, V4, V6};
use crate::maps::NAMES;

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    name(&Socket::<V4>::new(&context)).code()
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    name(&Socket::<V6>::new(&context)).code()
}

#[inline(always)]
fn name<F: Family>(socket: &Socket<F>) -> Exit {
    let peer = socket.peer();
    let key = socket.reverse(&Backend::new(peer.0, peer.1));
    // SAFETY: a row that is reused while it is read was the least recently used
    // of a table that is too small.
    if let Some(led) = unsafe { NAMES.get(&key) } {
        socket.set_peer((led.frontend.address, led.frontend.port));
    } else if let Some(state) = socket.state()
        && let Some(original) = original(state, peer)
    {
        socket.set_peer(original);
    }
    Exit::Proceed
}
