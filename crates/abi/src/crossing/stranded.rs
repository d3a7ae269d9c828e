//! Datagrams of sockets whose backend is gone.
//!
//! A datagram socket of a pod stays connected to a service as it is, and each of its
//! packets is led, where backends are pods. Where they are not, it is connected to
//! the backend itself; when that goes, the socket learns so by what is refused.

use crate::forward::Tables;
use crate::packet::Packet;
use crate::table::{BackendKey, SOCKET_CONNECTED};
use crate::wire::IPPROTO_UDP;

/// Whether the packet, of which [`Tables::work`] has what was read, is from such a
/// socket, and to that backend: 1, else 0.
#[inline(always)]
pub fn stranded<P: Packet>(packet: &mut P, tables: &impl Tables) -> u32 {
    let Some(work) = tables.work() else {
        return 0;
    };
    let key = &work.key;
    if key.protocol != u32::from(IPPROTO_UDP) {
        return 0;
    }
    let Some(socket) = packet.socket() else {
        return 0;
    };
    let (set, id) = (socket.set, socket.id);
    let is_led_there = socket.flags & SOCKET_CONNECTED != 0
        && socket.backend.port == key.destination_port
        && socket.backend.address == key.destination;
    u32::from(is_led_there && !tables.is_alive(&BackendKey { set, id }))
}
