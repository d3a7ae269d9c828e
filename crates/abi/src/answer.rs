//! Packets that become their own answer: nobody is there, or it does not fit.

use crate::packet::Packet;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{
    ETH_LEN, Frame, Header, IPPROTO_TCP, Icmp, Ip, Quoted, TCP_RST, Tcp, pseudo_header,
};

const TCP_LEN: usize = size_of::<Tcp>();

/// What nobody is there for, or what may not be (`prohibited`): TCP is reset, others
/// get an ICMP error.
#[inline(always)]
pub(crate) fn refuse<H: Ip, P: Packet>(
    packet: &mut P,
    reason: DropReason,
    prohibited: bool,
) -> Verdict
where
    Frame<H>: Header,
{
    let why = if prohibited {
        H::PROHIBITED
    } else {
        H::PORT_UNREACHABLE
    };
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Drop(reason);
    };
    let (begins_at, ..) = frame.ip.part();
    let made = match frame.ip.protocol() {
        // Errors are no answer to errors, nor to what has no ports (RFC 1122, 3.2.2;
        // RFC 4443, 2.4).
        _ if begins_at != 0 => None,
        protocol if protocol == H::ICMP => None,
        IPPROTO_TCP => reset::<H, P>(packet),
        _ => error::<H, P>(packet, why, 0),
    };
    made.map_or(Verdict::Drop(reason), |()| Verdict::Answer(reason))
}

/// The way is only that wide, bytes of IP packet.
#[inline(always)]
pub(crate) fn too_long<H: Ip, P: Packet>(packet: &mut P, mtu: u32) -> Verdict
where
    Frame<H>: Header,
{
    let reason = DropReason::TooLong;
    let made = error::<H, P>(packet, H::TOO_LONG, mtu);
    made.map_or(Verdict::Drop(reason), |()| Verdict::Answer(reason))
}

/// `None` if there is nothing to answer.
#[inline(always)]
fn reset<H: Ip, P: Packet>(packet: &mut P) -> Option<()>
where
    Frame<H>: Header,
{
    let length = packet.at::<Frame<H>>(0)?.ip.packet_len();
    let tcp = packet.at::<Tcp>(H::TRANSPORT)?;
    if tcp.flags() & TCP_RST != 0 {
        return None;
    }
    let payload = length.wrapping_sub(H::LEN as u32 + tcp.header_len()) & 0xffff;
    packet.resize(H::TRANSPORT + TCP_LEN).ok()?;
    let frame = packet.at::<Frame<H>>(0)?;
    frame.ethernet.turn();
    frame.ip.turn(TCP_LEN as u16, IPPROTO_TCP);
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    let pseudo = pseudo_header(&source, &destination, TCP_LEN as u16, IPPROTO_TCP);
    let tcp = packet.at::<Tcp>(H::TRANSPORT)?;
    let sum = tcp.make_reset(payload);
    tcp.set_checksum(sum + pseudo);
    Some(())
}

#[inline(always)]
fn error<H: Ip, P: Packet>(packet: &mut P, [kind, code]: [u8; 2], rest: u32) -> Option<()>
where
    Frame<H>: Header,
{
    let quote_len = size_of::<H::Quote>();
    // Who sent too little to quote has no use for it.
    packet.at::<Icmp>(H::TRANSPORT)?;
    packet.resize(ETH_LEN + quote_len).ok()?;
    let mut sum = packet.at::<H::Quote>(ETH_LEN)?.quote();
    let frame = packet.at::<Frame<H>>(0)?;
    frame.ethernet.turn();
    let length = (ETH_LEN + quote_len - H::TRANSPORT) as u16;
    frame.ip.turn(length, H::ICMP);
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    if !H::HAS_CHECKSUM {
        sum += pseudo_header(&source, &destination, length, H::ICMP);
    }
    let icmp = packet.at::<Icmp>(H::TRANSPORT)?;
    sum += icmp.set_error(kind, code, rest);
    icmp.set_checksum(sum);
    Some(())
}
