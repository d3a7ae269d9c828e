//! `sendto()` and `sendmsg()` of an unconnected UDP socket.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{Caller, Choice, Chosen, DropReason, SOCKET_UNCONNECTED, SocketState, choose};

use super::{Exit, Family, Socket, V4, V6};
use crate::maps::REVERSE;
use crate::services::Kernel;

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    send(&Socket::<V4>::new(&context)).code()
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    send(&Socket::<V6>::new(&context)).code()
}

#[inline(always)]
fn send<F: Family>(socket: &Socket<F>) -> Exit {
    let frontend = socket.destination();
    // An IPv6 socket that is connected to an IPv4 address comes by here although
    // it is connected; in a pod its packets are led one by one.
    if socket.connected_to() == frontend.port && !socket.in_node_netns() {
        return Exit::Proceed;
    }
    let chosen = choose(&Kernel, socket, &frontend, socket.state().as_deref());
    let Chosen { key, backend } = match chosen {
        Choice::Keep => return Exit::Proceed,
        Choice::Backend(chosen) => chosen,
        Choice::Refuse(reason) => return Exit::Refuse(reason),
    };
    let mut state = SocketState {
        frontend,
        backend,
        set: key.set,
        id: key.id,
        flags: SOCKET_UNCONNECTED,
    };
    if let Err(reason) = socket.remember(&mut state) {
        return Exit::Refuse(reason);
    }
    let key = socket.reverse(&backend);
    // Looking also keeps the row from being the least recently used.
    // SAFETY: only compared; at worst the row is written once more.
    let known = unsafe { REVERSE.get(&key) }.is_some_and(|known| *known == frontend);
    if !known && REVERSE.insert(&key, &frontend, 0).is_err() {
        return Exit::Refuse(DropReason::SocketState);
    }
    socket.set_peer((backend.address, backend.port));
    Exit::Proceed
}
