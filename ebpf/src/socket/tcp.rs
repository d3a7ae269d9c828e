//! TCP's events: a connection that was led to a backend ends, and says how much
//! went over it.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use ripstop_abi::{Address, Backend, Port, ReverseKey};

use crate::maps::{BACKENDS, NAMES};
use crate::services::add;

const AF_INET: u32 = 2;
/// `TCP_CLOSE` of net/tcp_states.h.
const CLOSED: u32 = 7;
/// Whatever was asked, there is no answer of ours.
const PROCEED: u32 = 1;

/// Called for all that a TCP socket of the cgroup does: most of it is none of
/// ours, and those who were led ask to be told when they end.
#[sock_ops]
fn tcp(context: SockOpsContext) -> u32 {
    let context = context.ops;
    // SAFETY: the context is valid for as long as the program runs; fields are
    // read whole, as the verifier wants it.
    unsafe {
        match read_volatile(&raw const (*context).op) {
            BPF_SOCK_OPS_TCP_CONNECT_CB => began(context),
            BPF_SOCK_OPS_STATE_CB => {
                let states = &raw const (*context).__bindgen_anon_1.args;
                if read_volatile(&raw const (*states)[1]) == CLOSED {
                    ended(context);
                }
            }
            _ => {}
        }
    }
    PROCEED
}

/// # Safety
/// The context is a socket's.
#[inline(always)]
unsafe fn began(context: *mut bpf_sock_ops) {
    // SAFETY: by the caller; rows are only looked for.
    unsafe {
        if NAMES.get(&key(context)).is_some() {
            bpf_sock_ops_cb_flags_set(context, BPF_SOCK_OPS_STATE_CB_FLAG as i32);
        }
    }
}

/// # Safety
/// The context is a socket's.
#[inline(always)]
unsafe fn ended(context: *mut bpf_sock_ops) {
    // SAFETY: by the caller; ids of backends are not used again, and the counter
    // is only ever added to.
    unsafe {
        let key = key(context);
        let Some(led) = NAMES.get(&key) else {
            return;
        };
        if let Some(row) = BACKENDS.get_ptr_mut(led.backend) {
            let sent = read_volatile(&raw const (*context).bytes_acked);
            let received = read_volatile(&raw const (*context).bytes_received);
            add(&raw mut (*row).bytes, sent + received);
        }
        // The socket's next connection has a row of its own.
        let _ = NAMES.remove(&key);
    }
}

/// The key under which `connect()` noted where it led this socket.
///
/// # Safety
/// The context is a socket's.
#[inline(always)]
unsafe fn key(context: *mut bpf_sock_ops) -> ReverseKey {
    // SAFETY: by the caller.
    unsafe {
        // Both are read: of two reads the compiler would make one from a chosen
        // place, which the verifier does not allow.
        let v4 = read_volatile(&raw const (*context).remote_ip4);
        let words = &raw const (*context).remote_ip6;
        let v6 = [
            read_volatile(&raw const (*words)[0]),
            read_volatile(&raw const (*words)[1]),
            read_volatile(&raw const (*words)[2]),
            read_volatile(&raw const (*words)[3]),
        ];
        let address = if read_volatile(&raw const (*context).family) == AF_INET {
            Address::v4(v4)
        } else {
            Address::v6(v6)
        };
        // In network order, in the word's last two bytes.
        let port = read_volatile(&raw const (*context).remote_port);
        let port = Port::from_network((port >> 16) as u16);
        let cookie = bpf_get_socket_cookie(context.cast());
        ReverseKey {
            cookie: [cookie as u32, (cookie >> 32) as u32],
            backend: Backend::new(address, port),
        }
    }
}
