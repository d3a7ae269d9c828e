//! `connect()`: a destination that is a service becomes one of its backends.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{Choice, SOCKET_CONNECTED, SocketState, choose};

use super::{Exit, Family, Socket, V4, V6};

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
    match choose(socket, &frontend, None) {
        Choice::Keep => {
            // A socket may be connected again, to something else.
            if let Some(state) = socket.state() {
                state.flags &= !SOCKET_CONNECTED;
            }
            Exit::Proceed
        }
        Choice::Backend { service, backend } => {
            let mut state = SocketState {
                frontend,
                backend,
                service,
                flags: SOCKET_CONNECTED,
            };
            if let Err(reason) = socket.remember(&mut state) {
                return Exit::Refuse(reason);
            }
            socket.set_peer((backend.address, backend.port));
            Exit::Proceed
        }
        Choice::Refuse(reason) => Exit::Refuse(reason),
    }
}
