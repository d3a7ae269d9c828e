//! `sendto()` and `sendmsg()` of an unconnected UDP socket.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{Choice, DropReason, ReverseKey, SOCKET_UNCONNECTED, SocketState, choose};

use super::{Exit, Family, Socket, V4, V6};
use crate::maps::REVERSE;

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
    let (service, backend) = match choose(socket, &frontend, socket.state().as_deref()) {
        Choice::Keep => return Exit::Proceed,
        Choice::Backend { service, backend } => (service, backend),
        Choice::Refuse(reason) => return Exit::Refuse(reason),
    };
    let mut state = SocketState {
        frontend,
        backend,
        service,
        flags: SOCKET_UNCONNECTED,
    };
    if let Err(reason) = socket.remember(&mut state) {
        return Exit::Refuse(reason);
    }
    let key = ReverseKey {
        cookie: socket.cookie(),
        backend,
    };
    // Looking also keeps the row from being the least recently used.
    // SAFETY: only compared; at worst the row is written once more.
    let known = unsafe { REVERSE.get(&key) }.is_some_and(|known| *known == frontend);
    if !known && REVERSE.insert(&key, &frontend, 0).is_err() {
        return Exit::Refuse(DropReason::SocketState);
    }
    socket.set_peer((backend.address, backend.port));
    Exit::Proceed
}
