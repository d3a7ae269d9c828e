//! What is asked about most packets: whether they are in the middle of a connection
//! that all who are asked allow by the rules as they are, and that such a packet
//! does not change. It is one look at the connection's row. About everything else
//! [`super::enforce`] asks.

use crate::Address;
use crate::forward::Tables;
use crate::packet::Packet;
use crate::policy::connection::{
    Connection, ConnectionKey, Next, ends_of_row, first, marks, place,
};
use crate::policy::question::{DenialKey, POLICY_ALONE, POLICY_OBSERVES, POLICY_RETIRED};
use crate::policy::{RECEIVER, SENDER};
use crate::wire::{
    Frame, Header, IPPROTO_TCP, IPPROTO_UDP, Ip, Ipv4, Ipv6, Ports, TCP_ACK, TCP_FIN, TCP_RST,
    TCP_SYN, Tcp,
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
    let (mut ends, mut begins) = (0, false);
    if protocol == IPPROTO_TCP {
        let Some(tcp) = packet.at::<Tcp>(H::TRANSPORT) else {
            return false;
        };
        let flags = tcp.flags() & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
        begins = flags == TCP_SYN;
        if flags & TCP_RST != 0 || flags & (TCP_SYN | TCP_ACK) == TCP_SYN && !begins {
            return false;
        }
        if flags & TCP_FIN != 0 {
            ends = marks::ENDS;
        }
    }
    let Some(ports) = packet.at::<Ports>(H::TRANSPORT) else {
        return false;
    };
    let (from, to) = (ports.source(), ports.destination());
    let out = first((&source, from), (&destination, to), sides);
    let key = if out != 0 {
        ConnectionKey::new((source, from), (destination, to), protocol)
    } else {
        ConnectionKey::new((destination, to), (source, from), protocol)
    };
    let Some(row) = place::find(tables, &key) else {
        return begins && opens(tables, &key, out, sides);
    };
    if begins {
        return false;
    }
    let state = tables.policy_state();
    let (pod, other) = ends_of_row(out);
    let generation = state.generation;
    let allowed = state.flags & (POLICY_RETIRED | POLICY_ALONE) == 0
        && (sides & pod == 0
            || row
                .outcome(generation)
                .is_some_and(|outcome| outcome.is_allowed()))
        && (sides & other == 0 || row.is_allowed_by_other(generation));
    let now = tables.now();
    if !allowed || !row.goes_on(now) {
        return false;
    }
    match row.next(ends | out) {
        Next::Stays { flags } => {
            row.touch(flags, now);
            true
        }
        // Of a row of one of two who are asked there may be another.
        Next::Ends => {
            state.flags & POLICY_OBSERVES == 0
                && (sides & other == 0 || row.is_of_both())
                && place::leave(tables, &key)
        }
    }
}

/// Whether the first packet of a connection that has no row may go on, as those may
/// that asked the same, and has a place now.
#[inline(always)]
fn opens(tables: &impl Tables, key: &ConnectionKey, out: u32, sides: u32) -> bool {
    let state = tables.policy_state();
    let generation = state.generation;
    if state.flags & (POLICY_RETIRED | POLICY_ALONE) != 0 {
        return false;
    }
    let inward = out == 0;
    let port = if inward { key.pod_port } else { key.other_port };
    let allowed = |pod: Address, other: Address, inward: bool| {
        let asked = DenialKey {
            pod,
            other,
            by: 0,
            port,
            protocol: IPPROTO_TCP,
            ingress: inward.into(),
            reserved: 0,
        };
        let before = tables.judgement(asked.slot())?;
        let outcome = before.outcome;
        (before.is_about(&asked, generation) && outcome.is_allowed()).then_some(outcome)
    };
    let Some(outcome) = allowed(key.pod, key.other, inward) else {
        return false;
    };
    let mut row = Connection::new(inward, tables.now());
    row.set_outcome(outcome, generation);
    if sides & ends_of_row(out).1 != 0 {
        if allowed(key.other, key.pod, !inward).is_none() {
            return false;
        }
        row.set_of_both(generation);
    }
    place::take(tables, key, &row)
}

const _: () = assert!(SENDER & RECEIVER == 0 && (SENDER | RECEIVER) & marks::OUT == 0);
