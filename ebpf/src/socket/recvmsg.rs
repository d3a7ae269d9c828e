//! `recvfrom()` and `recvmsg()` of a UDP socket: answers come from the service.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{Backend, SOCKET_UNCONNECTED, original};

use super::{Exit, Family, Socket, V4, V6};
use crate::maps::REVERSE;

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    received(&Socket::<V4>::new(&context)).code()
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    received(&Socket::<V6>::new(&context)).code()
}

#[inline(always)]
fn received<F: Family>(socket: &Socket<F>) -> Exit {
    // Sockets that never met a service have no state: one lookup for them.
    let Some(state) = socket.state() else {
        return Exit::Proceed;
    };
    let peer = socket.peer();
    if let Some(original) = original(state, peer) {
        socket.set_peer(original);
    } else if state.flags & SOCKET_UNCONNECTED != 0 {
        let key = socket.reverse(&Backend::new(peer.0, peer.1));
        // SAFETY: a row that is reused while it is read was the least recently
        // used of a table that is too small.
        if let Some(frontend) = unsafe { REVERSE.get(&key) } {
            socket.set_peer((frontend.address, frontend.port));
        }
    }
    Exit::Proceed
}
