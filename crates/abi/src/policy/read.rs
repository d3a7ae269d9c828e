//! What a packet is to policies: which connection it is of, and what it says of
//! it.

use crate::Port;
use crate::packet::Packet;
use crate::parts::inside;
use crate::policy::SENDER;
use crate::policy::connection::marks::{BEGINS, ENDS, ERROR, FIRST_PART, LATER_PART, RESETS};
use crate::policy::question::Policing;
use crate::wire::{
    ETH_LEN, Frame, Header, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Icmp, Ip, Ports, TCP_ACK,
    TCP_FIN, TCP_RST, TCP_SYN, Tcp,
};

/// Headers between IPv6's and the transport's, of which nobody sends any (RFC
/// 7045): hop-by-hop and destination options, routing, authentication, mobility,
/// host identity, shim.
const EXTENSIONS: [u8; 7] = [0, 43, 51, 60, 135, 139, 140];

/// Puts the ends of what the packet is of into their place; gives its marks.
/// `None` if policies cannot see through its headers.
///
/// Of an error the ends are those of the packet that it is about, turned around:
/// so who gets it is the end that gets it.
#[inline(always)]
pub(super) fn read<H: Ip, P: Packet>(
    packet: &mut P,
    policing: &mut Policing,
    sides: u32,
) -> Option<u32>
where
    Frame<H>: Header,
{
    let ip = &packet.at::<Frame<H>>(0)?.ip;
    if !ip.is_plain() {
        return None;
    }
    policing.source = ip.source();
    policing.icmp = H::ICMP.into();
    let ends = &mut policing.ends;
    ends.source = policing.source;
    ends.destination = ip.destination();
    let mut id = 0;
    let inside = inside::<H, P>(packet, |word| policing.blur(word), &mut id)?;
    let (protocol, transport) = (inside.protocol(), H::TRANSPORT + inside.beyond::<H>());
    let ends = &mut policing.ends;
    if !H::HAS_CHECKSUM && is_extension(protocol) {
        return None;
    }
    let none = Port::default();
    ends.protocol = protocol.into();
    (ends.source_port, ends.destination_port) = (none, none);
    let mut marks = 0;
    policing.id = id;
    if inside.is_part() {
        if inside.is_later_part() {
            return Some(LATER_PART);
        }
        marks = FIRST_PART;
    }
    match protocol {
        IPPROTO_TCP => {
            let tcp = packet.at::<Tcp>(transport)?;
            (ends.source_port, ends.destination_port) = (tcp.source(), tcp.destination());
            let flags = tcp.flags();
            if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
                marks |= BEGINS;
            }
            if flags & TCP_FIN != 0 {
                marks |= ENDS;
            }
            if flags & TCP_RST != 0 {
                marks |= RESETS;
            }
        }
        IPPROTO_UDP | IPPROTO_SCTP => {
            let ports = packet.at::<Ports>(transport)?;
            (ends.source_port, ends.destination_port) = (ports.source(), ports.destination());
        }
        _ if protocol == H::ICMP => {
            let icmp = packet.at::<Icmp>(transport)?;
            if icmp.kind == H::ECHO[0] {
                ends.source_port = icmp.id();
            } else if icmp.kind == H::ECHO[1] {
                ends.destination_port = icmp.id();
            } else if H::is_error(icmp.kind) && marks == 0 {
                return Some(about::<H, P>(packet, policing, sides));
            }
        }
        _ => {}
    }
    Some(marks)
}

/// The ends of what an error is about, if that can be seen, the error goes to who
/// sent it, and comes from whom it was for if that is a pod; else the error's own,
/// which are in their place.
#[inline(always)]
fn about<H: Ip, P: Packet>(packet: &mut P, policing: &mut Policing, sides: u32) -> u32
where
    Frame<H>: Header,
{
    let quoted = H::TRANSPORT + size_of::<Icmp>();
    packet.reach(quoted + H::LEN + size_of::<Ports>());
    // Seen as a frame that begins so much before as Ethernet's header is long.
    let Some(inner) = packet.at::<Frame<H>>(quoted - ETH_LEN) else {
        return 0;
    };
    let (protocol, (begins_at, ..)) = (inner.ip.protocol(), inner.ip.part());
    let (source, destination) = (inner.ip.source(), inner.ip.destination());
    let ends = &mut policing.ends;
    if !inner.ip.is_plain()
        || begins_at != 0
        || source != ends.destination
        || sides & SENDER != 0 && destination != ends.source
        || !matches!(protocol, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP)
    {
        return 0;
    }
    let Some(ports) = packet.at::<Ports>(quoted + H::LEN) else {
        return 0;
    };
    ends.source = destination;
    ends.source_port = ports.destination();
    ends.destination_port = ports.source();
    ends.protocol = protocol.into();
    ERROR
}

// By hand: what the library makes of it is a call.
#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    let mut found = false;
    let mut index = 0;
    while index < EXTENSIONS.len() {
        found |= EXTENSIONS[index] == protocol;
        index += 1;
    }
    found
}
