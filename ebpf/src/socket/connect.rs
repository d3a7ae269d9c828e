//! `connect()`: a destination that is a service becomes one of its backends.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{
    Caller, Choice, Chosen, DropReason, IPPROTO_TCP, Led, SOCKET_CONNECTED, SocketState, choose,
    leads_datagrams,
};

use super::{Exit, Family, Socket, V4, V6};
use crate::maps::{CONNECTED, NAMES};
use crate::services::Kernel;

#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect(&Socket::<V4>::new(&context)).code()
}

#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect(&Socket::<V6>::new(&context)).code()
}

#[inline(always)]
fn connect<F: Family>(socket: &Socket<F>) -> Exit {
    let frontend = socket.destination();
    let tcp = frontend.protocol == IPPROTO_TCP;
    if !tcp && !socket.in_node_netns() && leads_datagrams(&Kernel, &frontend) {
        if let Some(state) = socket.state() {
            state.flags &= !SOCKET_CONNECTED;
        }
        return Exit::Proceed;
    }
    match choose(&Kernel, socket, &frontend, None) {
        Choice::Keep => {
            // A datagram socket may be connected again, to something else.
            if !tcp && let Some(state) = socket.state() {
                state.flags &= !SOCKET_CONNECTED;
            }
            Exit::Proceed
        }
        Choice::Backend(Chosen { key, backend }) => {
            // TCP needs the name for `getpeername` and for counting alone, so it
            // is in a table that may forget it: storage of the socket's own costs
            // four times as much.
            let remembered = if tcp {
                let led = Led {
                    frontend,
                    backend: key,
                };
                NAMES
                    .insert(&socket.reverse(&backend), &led, 0)
                    .map_err(|_| DropReason::SocketState)
            } else {
                let mut state = SocketState {
                    frontend,
                    backend,
                    set: key.set,
                    id: key.id,
                    flags: SOCKET_CONNECTED,
                };
                socket.remember(&mut state).and_then(|()| {
                    if !socket.in_node_netns() {
                        return Ok(());
                    }
                    CONNECTED
                        .insert(&socket.reverse(&backend), &frontend, 0)
                        .map_err(|_| DropReason::SocketState)
                })
            };
            if let Err(reason) = remembered {
                return Exit::Refuse(reason);
            }
            socket.set_peer((backend.address, backend.port));
            Exit::Proceed
        }
        Choice::Refuse(reason) => Exit::Refuse(reason),
    }
}
