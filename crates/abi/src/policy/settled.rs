//! What is asked about most packets: whether they are in the middle of a connection
//! that all who are asked allow by the rules as they are, and that such a packet
//! does not change. It is one look at the connection's row. About everything else
//! [`super::enforce`] asks.

use crate::forward::Tables;
use crate::packet::Packet;
use crate::policy::connection::{
    ConnectionKey, POLICY_ALONE, POLICY_RETIRED, ends_of_row, first, marks,
};
use crate::policy::{RECEIVER, SENDER};
use crate::wire::{
    Frame, Header, IPPROTO_TCP, IPPROTO_UDP, Ip, Ipv4, Ipv6, Ports, TCP_FIN, TCP_RST, TCP_SYN, Tcp,
};

/// Whether the packet, which nothing translates, may go on without any more: one, or
/// zero if that has to be asked. `sides`: who is asked.
#[inline(always)]
pub fn settled_v4<P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32) -> u32 {
    settled::<Ipv4, P>(packet, tables, sides).into()
}

/// As [`settled_v4`].
#[inline(always)]
pub fn settled_v6<P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32) -> u32 {
    settled::<Ipv6, P>(packet, tables, sides).into()
}

#[inline(always)]
fn settled<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32) -> bool
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return false;
    };
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    // None of what is a part of a packet.
    let Some(protocol @ (IPPROTO_TCP | IPPROTO_UDP)) = frame.ip.transport() else {
        return false;
    };
    if protocol == IPPROTO_TCP {
        let Some(tcp) = packet.at::<Tcp>(H::TRANSPORT) else {
            return false;
        };
        if tcp.flags() & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            return false;
        }
    }
    let Some(ports) = packet.at::<Ports>(H::TRANSPORT) else {
        return false;
    };
    let (from, to) = (
        (&source, ports.source()),
        (&destination, ports.destination()),
    );
    let out = first(from, to, sides);
    let (pod, other) = if out != 0 { (from, to) } else { (to, from) };
    let key = ConnectionKey {
        pod: *pod.0,
        other: *other.0,
        pod_port: pod.1,
        other_port: other.1,
        protocol: protocol.into(),
    };
    let Some(row) = tables.connection(&key) else {
        return false;
    };
    let state = tables.policy_state();
    let (pod, other) = ends_of_row(out);
    let generation = state.generation;
    state.flags & (POLICY_RETIRED | POLICY_ALONE) == 0
        && (sides & pod == 0
            || row
                .outcome(generation)
                .is_some_and(|outcome| outcome.is_allowed()))
        && (sides & other == 0 || row.is_allowed_by_other(generation))
        && row.is_settled(out, tables.now())
}

const _: () = assert!(SENDER & RECEIVER == 0 && (SENDER | RECEIVER) & marks::OUT == 0);
