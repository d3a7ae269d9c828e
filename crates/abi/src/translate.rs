//! Packets that carry ports: which flow they are of, and how they become those
//! of another.

use crate::packet::{ChecksumChange, Covered, Packet};
use crate::parts::inside;
use crate::table::{Flow, FlowKey, Work};
use crate::verdict::DropReason;
use crate::wire::{
    FragmentHeader, Frame, Header, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Icmp, Ip, Mss, Ports,
    Sctp, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Tcp,
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
    /// The first part of a packet.
    pub(crate) is_first_part: bool,
    /// Another one, whose ports are those of the first.
    pub(crate) is_later_part: bool,
}

/// What a packet is of, with the key in its place, and what it is a part of; why
/// it is of nothing that has ports.
#[inline(always)]
pub(crate) fn segment<H: Ip, P: Packet>(
    packet: &mut P,
    work: &mut Work,
) -> Result<Segment, DropReason>
where
    Frame<H>: Header,
{
    let mut id = 0;
    let blur = |word: u32| work.blur(word.into()) as u32;
    let inside = inside::<H, P>(packet, blur, &mut id).ok_or(DropReason::Protocol)?;
    work.part.id = id;
    let ip = &packet.at::<Frame<H>>(0).ok_or(DropReason::Protocol)?.ip;
    let (protocol, beyond) = (inside.protocol(), inside.beyond::<H>());
    let at = H::TRANSPORT + beyond;
    let (key, part) = (&mut work.key, &mut work.part);
    key.source = ip.source();
    key.destination = ip.destination();
    key.protocol = protocol.into();
    let length = ip.packet_len().wrapping_sub(beyond as u32);
    work.place = beyond as u32;
    if inside.is_part() {
        if protocol == IPPROTO_SCTP {
            // Of a checksum over all of it nobody can tell how it changes.
            return Err(DropReason::Fragment);
        }
        part.source = key.source;
        part.destination = key.destination;
        part.protocol = key.protocol;
    }
    if inside.is_later_part() {
        work.place = Work::NOWHERE;
        return Ok(Segment {
            begins: false,
            synchronizes: false,
            ends: false,
            payload: length.saturating_sub(H::LEN as u32),
            is_first_part: false,
            is_later_part: true,
        });
    }
    let mut header = size_of::<Icmp>() as u32;
    let (mut begins, mut synchronizes, mut ends) = (true, false, false);
    let (source_port, destination_port) = if protocol == H::ICMP {
        let icmp = packet.at::<Icmp>(at).ok_or(DropReason::Protocol)?;
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
            return Err(DropReason::Protocol);
        }
        let ports = packet.at::<Ports>(at).ok_or(DropReason::Protocol)?;
        let ends_at = (ports.source(), ports.destination());
        if protocol == IPPROTO_TCP {
            let tcp = packet.at::<Tcp>(at).ok_or(DropReason::Protocol)?;
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
        is_first_part: inside.is_part(),
        is_later_part: false,
    })
}

/// Makes the packet of that key what the flow says. Gives how the ports of an
/// SCTP packet changed: its checksum is left to [`finish`]. `place`: that of
/// [`Work`].
///
/// # Errors
/// [`DropReason::Rewrite`]; the packet may then be half translated.
#[inline(always)]
pub(crate) fn rewrite<H: Ip, P: Packet>(
    packet: &mut P,
    key: &FlowKey,
    flow: &Flow,
    place: u32,
) -> Result<u32, DropReason>
where
    Frame<H>: Header,
{
    let at = transport::<H>(place);
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
        let offset = at
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
        let icmp = packet.at::<Icmp>(at).ok_or(DropReason::Rewrite)?;
        icmp.set_id(if icmp.kind == H::ECHO[0] {
            flow.source_port
        } else {
            flow.destination_port
        });
    } else {
        let ports = packet.at::<Ports>(at).ok_or(DropReason::Rewrite)?;
        ports.set_source(flow.source_port);
        ports.set_destination(flow.destination_port);
    }
    Ok(changed)
}

/// Likewise a part without ports: its addresses. The checksum is in the first
/// part, and covers all of them.
#[inline(always)]
pub(crate) fn rewrite_later_part<H: Ip, P: Packet>(packet: &mut P, key: &FlowKey, flow: &Flow)
where
    Frame<H>: Header,
{
    if !H::HAS_CHECKSUM {
        packet.address_replaced(&key.source, &flow.source);
        packet.address_replaced(&key.destination, &flow.destination);
    }
    if let Some(frame) = packet.at::<Frame<H>>(0) {
        frame.ip.set_source(&flow.source);
        frame.ip.set_destination(&flow.destination);
    }
}

/// Where the transport's header is. IPv4 says in its own header what a part is.
#[inline(always)]
const fn transport<H: Ip>(place: u32) -> usize
where
    Frame<H>: Header,
{
    if H::HAS_CHECKSUM {
        H::TRANSPORT
    } else {
        H::TRANSPORT + (place as usize & size_of::<FragmentHeader>())
    }
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
