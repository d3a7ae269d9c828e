//! Parts of packets: what a part is of, and what its first one was.
//!
//! A datagram that is longer than a way is wide comes in parts, of which the first
//! has the ports. Who decides about it by those notes the first part that it lets
//! pass; the others find it by sender, receiver, protocol and the packet's number.
//! What comes before its first part is dropped as [`DropReason::Fragment`]: all
//! known systems send the first one first.
//!
//! [`DropReason::Fragment`]: crate::DropReason::Fragment

use crate::Address;
use crate::forward::Tables;
use crate::packet::Packet;
use crate::service::client_hash;
use crate::table::{RANGE_PODS, Work};
use crate::wire::{FragmentHeader, Frame, Header, IPPROTO_FRAGMENT, Ip, Tcp};

/// Who noted a first part.
pub(crate) const BY_TRANSLATION: u32 = 0;
/// Policies, as the pod that sends it sees it; as the one that gets it.
pub(crate) const BY_SENDER: u32 = 1 << 16;
pub(crate) const BY_RECEIVER: u32 = 2 << 16;

/// How many packets in parts each pod may have under way, for each who notes; and
/// all others together. A pod has that many rows of the table and no more, so what
/// a flood of first parts takes away is its own.
const OF_POD: u32 = 16;
const OF_OTHERS: u32 = 512;

/// For how many seconds the other parts of a packet may follow the first (Linux:
/// `ipfrag_time`).
const FOLLOW: u32 = 30;

/// What is behind an IP header, in a word: the verifier knows many of them as one,
/// when it no longer knows what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside(u32);

const LATER: u32 = 1 << 8;
const PART: u32 = 1 << 9;
/// Where the number is of how many bytes are between the IP header and what this is
/// about: eight, or none.
const BEYOND: u32 = 16;

impl Inside {
    /// Of the whole packet.
    #[inline(always)]
    pub(crate) const fn protocol(self) -> u8 {
        self.0 as u8
    }
    #[inline(always)]
    pub(crate) const fn is_part(self) -> bool {
        self.0 & PART != 0
    }
    /// A part, and not the first one: there is no transport's header.
    #[inline(always)]
    pub(crate) const fn is_later_part(self) -> bool {
        self.0 & LATER != 0
    }
    /// Bytes between the IP header and the transport's.
    #[inline(always)]
    pub(crate) const fn beyond<H: Ip>(self) -> usize
    where
        Frame<H>: Header,
    {
        if H::HAS_CHECKSUM {
            // IPv4 says in its own header what a part is.
            0
        } else {
            (self.0 >> BEYOND) as usize & size_of::<FragmentHeader>()
        }
    }
}

/// Looks behind the IP header, also over the header that says what a part of an
/// IPv6 packet is; gives the number of the packet, too. `None` if that is not there.
#[inline(always)]
pub(crate) fn inside<H: Ip, P: Packet>(
    packet: &mut P,
    blur: impl FnOnce(u32) -> u32,
    id: &mut u32,
) -> Option<Inside>
where
    Frame<H>: Header,
{
    let ip = &packet.at::<Frame<H>>(0)?.ip;
    let mut word = u32::from(ip.protocol());
    if H::HAS_CHECKSUM {
        let (offset, more, number) = ip.part();
        *id = number;
        if offset != 0 {
            word |= PART | LATER;
        } else if more {
            word |= PART;
        }
    } else if word == u32::from(IPPROTO_FRAGMENT) {
        let length = size_of::<FragmentHeader>();
        let header = packet.at::<FragmentHeader>(H::TRANSPORT)?;
        *id = header.id();
        let later = if header.is_first() { 0 } else { LATER };
        word = u32::from(header.protocol()) | PART | later | (length as u32) << BEYOND;
        packet.reach(H::TRANSPORT + length + size_of::<Tcp>());
    }
    Some(Inside(blur(word)))
}

/// Notes that the first part of a packet, which is that of [`Tables::work`], may
/// pass. Gives nothing: a function of its own in the kernel has to.
#[inline(always)]
pub fn note_part(tables: &impl Tables, by: u32) -> u32 {
    if let Some(work) = tables.work() {
        work.part.last = tables.now();
        place(tables, by, work);
        tables.remember_part(&work.part_key, &work.part);
    }
    0
}

/// Of a later part, which is that of [`Tables::work`]: the ports of the first, if
/// that passed just now, and [`FOUND`]. The destination's are the higher half.
#[inline(always)]
pub fn first_part(tables: &impl Tables, by: u32) -> u64 {
    let Some(work) = tables.work() else {
        return 0;
    };
    place(tables, by, work);
    let part = &work.part;
    match tables.part(&work.part_key) {
        Some(first)
            if first.id == part.id
                && first.protocol == part.protocol
                && first.source == part.source
                && first.destination == part.destination
                && tables.now().wrapping_sub(first.last) <= FOLLOW =>
        {
            let ports = [first.source_port, first.destination_port];
            let [source, destination] = ports.map(|port| u64::from(port.network()));
            FOUND | destination << 16 | source
        }
        _ => 0,
    }
}

/// See [`first_part`].
pub(crate) const FOUND: u64 = 1 << 32;

#[inline(always)]
fn place(tables: &impl Tables, by: u32, work: &mut Work) {
    let (key, part) = (&mut work.part_key, &work.part);
    if tables.range(&part.source) == RANGE_PODS {
        key.owner = part.source;
        key.place = by | (part.id % OF_POD);
    } else {
        key.owner = Address::default();
        key.place = by | (client_hash(&part.source, part.id as u16) % OF_OTHERS);
    }
}
