//! ICMP errors about packets of a flow. They go to whom the packet was from, as
//! it was when the error was made, and quote it; so they are turned into an error
//! about the packet as the flow's other side knows it (RFC 5508, 4.2).

use crate::packet::{ChecksumChange, Covered, Packet};
use crate::table::{Flow, FlowKey};
use crate::verdict::DropReason;
use crate::wire::{Frame, Header, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Icmp, Ip, Ports};
use crate::{Address, Port};

const ICMP_LEN: usize = size_of::<Icmp>();

/// Where the quoted packet is in an error's frame.
const fn quote<H: Ip>() -> usize
where
    Frame<H>: Header,
{
    H::TRANSPORT + ICMP_LEN
}

/// If the packet is an ICMP error: the key of the answers to the packet that it
/// quotes. They take the error's way.
#[inline(always)]
pub(crate) fn answers_to_quoted<H: Ip, P: Packet>(packet: &mut P, key: &mut FlowKey) -> Option<()>
where
    Frame<H>: Header,
{
    if packet.at::<Frame<H>>(0)?.ip.transport()? != H::ICMP {
        return None;
    }
    if !H::is_error(packet.at::<Icmp>(H::TRANSPORT)?.kind) {
        return None;
    }
    let transport = quote::<H>() + H::LEN;
    packet.reach(transport + ICMP_LEN);
    let ip = packet.at::<H>(quote::<H>())?;
    let (begins_at, ..) = ip.part();
    if !ip.is_plain() || begins_at != 0 {
        return None;
    }
    let protocol = ip.protocol();
    key.source = ip.destination();
    key.destination = ip.source();
    key.protocol = protocol.into();
    let none = Port::default();
    (key.source_port, key.destination_port) = if protocol == H::ICMP {
        let icmp = packet.at::<Icmp>(transport)?;
        match icmp.kind {
            kind if kind == H::ECHO[0] => (none, icmp.id()),
            kind if kind == H::ECHO[1] => (icmp.id(), none),
            _ => return None,
        }
    } else if matches!(protocol, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP) {
        let ports = packet.at::<Ports>(transport)?;
        (ports.destination(), ports.source())
    } else {
        return None;
    };
    Some(())
}

/// Makes the error one about the packet as it was before its flow translated it:
/// to whom the flow's answers go. `key` is that of [`answers_to_quoted`], `flow`
/// what such answers become. From whom it is stays to be seen if the answers'
/// source does.
///
/// The quoted packet's own transport checksum is left as it was: nobody looks at
/// it, and most of what it covers is not there.
///
/// # Errors
/// [`DropReason::Rewrite`]; the packet may then be half translated.
#[inline(always)]
pub(crate) fn rewrite<H: Ip, P: Packet>(
    packet: &mut P,
    key: &FlowKey,
    flow: &Flow,
) -> Result<(), DropReason>
where
    Frame<H>: Header,
{
    let ip = &packet.at::<Frame<H>>(0).ok_or(DropReason::Rewrite)?.ip;
    let (source, destination) = (ip.source(), ip.destination());
    let new_source = if flow.source == key.source {
        source
    } else {
        flow.source
    };
    // An IPv4 header's own checksum makes up for its addresses.
    let (inside, outside) = if H::HAS_CHECKSUM {
        (Covered::No, Covered::No)
    } else {
        (Covered::Payload, Covered::PseudoHeader)
    };
    let none = Port::default();
    let mut replace = |old: (&Address, Port), new: (&Address, Port), addresses| {
        let change = ChecksumChange {
            old,
            new,
            udp: false,
            addresses,
        };
        packet.replace_checksum(H::TRANSPORT + 2, &change)
    };
    replace(
        (&key.destination, key.destination_port),
        (&flow.destination, flow.destination_port),
        inside,
    )?;
    replace(
        (&key.source, key.source_port),
        (&flow.source, flow.source_port),
        inside,
    )?;
    if outside != Covered::No {
        replace((&source, none), (&new_source, none), outside)?;
        replace((&destination, none), (&flow.destination, none), outside)?;
    }
    let ip = &mut packet.at::<Frame<H>>(0).ok_or(DropReason::Rewrite)?.ip;
    ip.set_source(&new_source);
    ip.set_destination(&flow.destination);
    let ip = packet.at::<H>(quote::<H>()).ok_or(DropReason::Rewrite)?;
    ip.set_source(&flow.destination);
    ip.set_destination(&flow.source);
    let transport = quote::<H>() + H::LEN;
    if key.protocol == u32::from(H::ICMP) {
        let icmp = packet.at::<Icmp>(transport).ok_or(DropReason::Rewrite)?;
        icmp.set_id(if icmp.kind == H::ECHO[0] {
            flow.destination_port
        } else {
            flow.source_port
        });
    } else {
        let ports = packet.at::<Ports>(transport).ok_or(DropReason::Rewrite)?;
        ports.set_source(flow.destination_port);
        ports.set_destination(flow.source_port);
    }
    Ok(())
}
