//! Ports of the node that lead to a pod: the way in and the way of the answers.
//!
//! Packets that carry no port (fragments, extension headers, ICMP) are left as
//! they are.

use crate::forward::Tables;
use crate::packet::{ChecksumChange, Packet};
use crate::table::{Flow, FlowKey, HostPortTarget, ServiceAddress};
use crate::verdict::DropReason;
use crate::wire::{Frame, Header, IPPROTO_TCP, IPPROTO_UDP, Ip, Ports};
use crate::{Address, Port};

/// Both ends of a packet that carries ports.
struct Ends {
    protocol: u8,
    source: (Address, Port),
    destination: (Address, Port),
}

/// Which end a translation replaces.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// A request to a port of the node: its destination becomes the pod. `None` if
/// it is to something else, and untouched.
#[inline(always)]
pub(crate) fn request<'t, H: Ip, P: Packet>(
    packet: &mut P,
    tables: &'t impl Tables,
    ifindex: u32,
) -> Result<Option<&'t HostPortTarget>, DropReason>
where
    Frame<H>: Header,
{
    let Some(ends) = ends::<H, P>(packet) else {
        return Ok(None);
    };
    let (node, node_port) = ends.destination;
    let Some(target) = tables.host_port(&ServiceAddress::new(node, node_port, ends.protocol))
    else {
        return Ok(None);
    };
    let pod = (target.backend.address, target.backend.port);
    let key = flow_key(pod, ends.source, ends.protocol);
    let flow = Flow {
        node,
        ifindex,
        node_port,
        reserved: 0,
    };
    // Writing takes a lock: only what is new.
    let known = tables.flow(&key).is_some_and(|known| {
        known.node_port == node_port && known.ifindex == ifindex && known.node == node
    });
    if !known {
        tables.remember(&key, &flow)?;
    }
    translate::<H, P>(packet, &ends, End::Destination, pod)?;
    Ok(Some(target))
}

/// An answer to a translated request: its source becomes the port of the node.
/// Gives the link by which the request came, `None` if it is no such answer.
#[inline(always)]
pub(crate) fn answer<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
) -> Result<Option<u32>, DropReason>
where
    Frame<H>: Header,
{
    let Some(ends) = ends::<H, P>(packet) else {
        return Ok(None);
    };
    let key = flow_key(ends.source, ends.destination, ends.protocol);
    let Some(flow) = tables.flow(&key) else {
        return Ok(None);
    };
    translate::<H, P>(packet, &ends, End::Source, (flow.node, flow.node_port))?;
    Ok(Some(flow.ifindex))
}

#[inline(always)]
fn flow_key(pod: (Address, Port), client: (Address, Port), protocol: u8) -> FlowKey {
    FlowKey {
        pod: pod.0,
        client: client.0,
        pod_port: pod.1,
        client_port: client.1,
        protocol: protocol.into(),
    }
}

#[inline(always)]
fn ends<H: Ip, P: Packet>(packet: &mut P) -> Option<Ends>
where
    Frame<H>: Header,
{
    let ip = &packet.at::<Frame<H>>(0)?.ip;
    let protocol = ip
        .transport()
        .filter(|p| matches!(*p, IPPROTO_TCP | IPPROTO_UDP))?;
    let (source, destination) = (ip.source(), ip.destination());
    let ports = packet.at::<Ports>(H::TRANSPORT)?;
    Some(Ends {
        protocol,
        source: (source, ports.source()),
        destination: (destination, ports.destination()),
    })
}

#[inline(always)]
fn translate<H: Ip, P: Packet>(
    packet: &mut P,
    ends: &Ends,
    end: End,
    new: (Address, Port),
) -> Result<(), DropReason>
where
    Frame<H>: Header,
{
    let udp = ends.protocol == IPPROTO_UDP;
    let old = match end {
        End::Source => ends.source,
        End::Destination => ends.destination,
    };
    // Offsets of the checksum: RFC 9293, 3.1; RFC 768.
    let checksum = H::TRANSPORT + if udp { 6 } else { 16 };
    packet.replace_checksum(checksum, &ChecksumChange { old, new, udp })?;
    let ip = &mut packet.at::<Frame<H>>(0).ok_or(DropReason::Rewrite)?.ip;
    match end {
        End::Source => ip.set_source(&new.0),
        End::Destination => ip.set_destination(&new.0),
    }
    let ports = packet
        .at::<Ports>(H::TRANSPORT)
        .ok_or(DropReason::Rewrite)?;
    match end {
        End::Source => ports.set_source(new.1),
        End::Destination => ports.set_destination(new.1),
    }
    Ok(())
}
