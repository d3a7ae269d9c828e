//! Packets that carry ports: which flow they are of, and how they become those
//! of another.

use crate::packet::{ChecksumChange, Covered, Packet};
use crate::table::{Flow, FlowKey};
use crate::verdict::DropReason;
use crate::wire::{
    Frame, Header, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Icmp, Ip, Mss, Ports, Sctp, TCP_ACK,
    TCP_FIN, TCP_RST, TCP_SYN, Tcp,
};
use crate::{Address, Port, crc32c};

/// What is to be known of a packet that a translation understands, beside its
/// key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// It can be the first packet of a flow.
    pub(crate) begins: bool,
    /// It is a connection's first packet or the answer to that, whatever went
    /// before between the same ends.
    pub(crate) synchronizes: bool,
    /// One side has ended.
    pub(crate) ends: bool,
    /// Bytes behind the transport's header.
    pub(crate) payload: u32,
}

/// What a packet is of, with the key in its place; why it is of nothing that
/// has ports.
#[inline(always)]
pub(crate) fn segment<H: Ip, P: Packet>(
    packet: &mut P,
    key: &mut FlowKey,
) -> Result<Segment, DropReason>
where
    Frame<H>: Header,
{
    let ip = &packet.at::<Frame<H>>(0).ok_or(DropReason::Protocol)?.ip;
    let protocol = ip.transport().ok_or(DropReason::Fragment)?;
    key.source = ip.source();
    key.destination = ip.destination();
    key.protocol = protocol.into();
    let length = ip.packet_len();
    let mut header = size_of::<Icmp>() as u32;
    let (mut begins, mut synchronizes, mut ends) = (true, false, false);
    let (source_port, destination_port) = if protocol == H::ICMP {
        let icmp = packet
            .at::<Icmp>(H::TRANSPORT)
            .ok_or(DropReason::Protocol)?;
        let (none, id) = (Port::default(), icmp.id());
        match icmp.kind {
            kind if kind == H::ECHO[0] => (id, none),
            kind if kind == H::ECHO[1] => {
                begins = false;
                (none, id)
            }
            _ => return Err(DropReason::Protocol),
        }
    } else {
        if !matches!(protocol, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP) {
            return Err(if protocol == 44 {
                DropReason::Fragment
            } else {
                DropReason::Protocol
            });
        }
        let ports = packet
            .at::<Ports>(H::TRANSPORT)
            .ok_or(DropReason::Protocol)?;
        let ends_at = (ports.source(), ports.destination());
        if protocol == IPPROTO_TCP {
            let tcp = packet.at::<Tcp>(H::TRANSPORT).ok_or(DropReason::Protocol)?;
            let flags = tcp.flags();
            begins = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
            synchronizes = flags & TCP_SYN != 0;
            ends = flags & (TCP_FIN | TCP_RST) != 0;
            header = tcp.header_len();
        } else if protocol == IPPROTO_SCTP {
            header = size_of::<Sctp>() as u32;
        }
        ends_at
    };
    key.source_port = source_port;
    key.destination_port = destination_port;
    Ok(Segment {
        begins,
        synchronizes,
        ends,
        payload: length.saturating_sub(H::LEN as u32 + header),
    })
}

/// Makes the packet of that key what the flow says. Gives how the ports of an
/// SCTP packet changed: its checksum is left to [`finish`].
///
/// # Errors
/// [`DropReason::Rewrite`]; the packet may then be half translated.
#[inline(always)]
pub(crate) fn rewrite<H: Ip, P: Packet>(
    packet: &mut P,
    key: &FlowKey,
    flow: &Flow,
) -> Result<u32, DropReason>
where
    Frame<H>: Header,
{
    let protocol = key.protocol as u8;
    let mut changed = 0;
    if protocol == IPPROTO_SCTP {
        let word = |source: Port, destination: Port| {
            u32::from(source.network()) | u32::from(destination.network()) << 16
        };
        changed = word(key.source_port, key.destination_port)
            ^ word(flow.source_port, flow.destination_port);
    } else {
        // Offsets of the checksum: RFC 9293, 3.1; RFC 768; RFC 792.
        let udp = protocol == IPPROTO_UDP;
        let offset = H::TRANSPORT
            + match protocol {
                IPPROTO_TCP => 16,
                IPPROTO_UDP => 6,
                _ => 2,
            };
        // ICMP over IPv4 has none.
        let addresses = if H::HAS_CHECKSUM && protocol == H::ICMP {
            Covered::No
        } else {
            Covered::PseudoHeader
        };
        packet.replace_checksum(
            offset,
            &ChecksumChange {
                old: (&key.source, key.source_port),
                new: (&flow.source, flow.source_port),
                udp,
                addresses,
            },
        )?;
        packet.replace_checksum(
            offset,
            &ChecksumChange {
                old: (&key.destination, key.destination_port),
                new: (&flow.destination, flow.destination_port),
                udp,
                addresses,
            },
        )?;
    }
    let ip = &mut packet.at::<Frame<H>>(0).ok_or(DropReason::Rewrite)?.ip;
    ip.set_source(&flow.source);
    ip.set_destination(&flow.destination);
    if protocol == H::ICMP {
        let icmp = packet.at::<Icmp>(H::TRANSPORT).ok_or(DropReason::Rewrite)?;
        icmp.set_id(if icmp.kind == H::ECHO[0] {
            flow.source_port
        } else {
            flow.destination_port
        });
    } else {
        let ports = packet
            .at::<Ports>(H::TRANSPORT)
            .ok_or(DropReason::Rewrite)?;
        ports.set_source(flow.source_port);
        ports.set_destination(flow.destination_port);
    }
    Ok(changed)
}

/// Tells who begins a connection not to be sent longer segments than fit into
/// packets of `mtu` bytes. It is the first option, if there is any: all systems
/// write it there.
#[inline(always)]
pub(crate) fn clamp<H: Ip, P: Packet>(packet: &mut P, mtu: u32) -> Result<(), DropReason>
where
    Frame<H>: Header,
{
    const TCP_LEN: usize = size_of::<Tcp>();
    let tcp = packet.at::<Tcp>(H::TRANSPORT).ok_or(DropReason::Rewrite)?;
    if tcp.flags() & TCP_SYN == 0 || tcp.header_len() <= TCP_LEN as u32 {
        return Ok(());
    }
    let most = mtu.saturating_sub((H::LEN + TCP_LEN) as u32);
    let Some(size) = packet
        .at::<Mss>(H::TRANSPORT + TCP_LEN)
        .and_then(|mss| mss.size())
    else {
        return Ok(());
    };
    if u32::from(size.host()) <= most {
        return Ok(());
    }
    let (none, most) = (Address::default(), Port::from_host(most as u16));
    let change = ChecksumChange {
        old: (&none, size),
        new: (&none, most),
        udp: false,
        addresses: Covered::No,
    };
    packet.replace_checksum(H::TRANSPORT + 16, &change)?;
    let mss = packet.at::<Mss>(H::TRANSPORT + TCP_LEN);
    mss.ok_or(DropReason::Rewrite)?.set_size(most);
    Ok(())
}

/// SCTP's checksum covers the ports and no addresses (RFC 9260, 6.8). Zero is
/// left alone: a device has still to write it.
#[inline(always)]
pub(crate) fn finish<H: Ip, P: Packet>(packet: &mut P, ports: u32)
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return;
    };
    let behind = frame.ip.packet_len().wrapping_sub(H::LEN as u32 + 4);
    let product = |factor, power| packet.crc32c_product(factor, power);
    let difference = crc32c::difference(ports.to_le(), behind, product).to_le();
    let Some(header) = packet.at::<Sctp>(H::TRANSPORT) else {
        return;
    };
    let checksum = header.checksum();
    if checksum != 0 {
        header.set_checksum(checksum ^ difference);
    }
}
