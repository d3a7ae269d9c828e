//! What decisions need to know of a packet, whatever its family.

use crate::Port;
use crate::forward::{Tables, may_be_tunnelled};
use crate::packet::Packet;
use crate::parts;
use crate::quoted;
use crate::table::Work;
use crate::translate::{Segment, segment};
use crate::verdict::DropReason;
use crate::wire::{Frame, Header, Ip, Ipv4, Ipv6};

/// What a packet is, in a word, beside what is put into [`Work`]. The lowest bit is
/// [`TRANSLATED_SENDER`](crate::policy::TRANSLATED_SENDER).
pub(super) mod marks {
    /// The parts of a [`Segment`](crate::translate::Segment).
    pub(in crate::crossing) const BEGINS: u32 = 1 << 1;
    pub(in crate::crossing) const SYNCHRONIZES: u32 = 1 << 2;
    pub(in crate::crossing) const ENDS: u32 = 1 << 3;
    /// It has no ports, for the reason whose number is in the highest byte.
    pub(in crate::crossing) const NOTHING: u32 = 1 << 4;
    /// Nor has it, and its key is that of answers to what it quotes.
    pub(in crate::crossing) const QUOTES: u32 = 1 << 5;
    /// It may be one for a tunnel between nodes.
    pub(in crate::crossing) const TUNNELLED: u32 = 1 << 6;
    /// A part of a packet: the first; another one, which has no ports of its own.
    pub(in crate::crossing) const FIRST_PART: u32 = 1 << 7;
    pub(in crate::crossing) const LATER_PART: u32 = 1 << 8;
    /// A pod of this node sent it; said of what leaves the node alone.
    pub(in crate::crossing) const OF_POD: u32 = 1 << 9;
    pub(in crate::crossing) const REASON: u32 = 24;
}

/// Reads a packet: [`marks`]. `of_pod`: not zero if a pod of this node sent it.
#[inline(always)]
pub fn read_v4<P: Packet>(packet: &mut P, tables: &impl Tables, of_pod: u32) -> u32 {
    read::<Ipv4, P>(packet, tables, of_pod)
}

/// As [`read_v4`].
#[inline(always)]
pub fn read_v6<P: Packet>(packet: &mut P, tables: &impl Tables, of_pod: u32) -> u32 {
    read::<Ipv6, P>(packet, tables, of_pod)
}

#[inline(always)]
fn read<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, of_pod: u32) -> u32
where
    Frame<H>: Header,
{
    let Some(work) = tables.work() else {
        return marks::NOTHING;
    };
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return marks::NOTHING;
    };
    work.destination = frame.ip.destination();
    let tunnelled = if of_pod != 0 && may_be_tunnelled::<H, P>(packet) {
        marks::TUNNELLED
    } else {
        0
    };
    tunnelled
        | match segment::<H, P>(packet, work) {
            Ok(segment) if segment.is_later_part => {
                work.payload = segment.payload;
                let reason = (DropReason::Fragment as u32) << marks::REASON;
                marks::NOTHING | marks::LATER_PART | reason
            }
            Ok(segment) => {
                work.payload = segment.payload;
                let mark = |is: bool, mark| if is { mark } else { 0 };
                mark(segment.is_first_part, marks::FIRST_PART)
                    | mark(segment.begins, marks::BEGINS)
                    | mark(segment.synchronizes, marks::SYNCHRONIZES)
                    | mark(segment.ends, marks::ENDS)
            }
            Err(reason) => {
                let quotes = quoted::answers_to_quoted::<H, P>(packet, &mut work.key).is_some();
                let kind = if quotes {
                    marks::NOTHING | marks::QUOTES
                } else {
                    marks::NOTHING
                };
                kind | (reason as u32) << marks::REASON
            }
        }
}

/// What was read, which means something if there are ports: of a choice between
/// this and something else the compiler would copy what was never written, which
/// older verifiers refuse.
#[inline(always)]
pub(super) const fn segment_of(work: &Work, read: u32) -> Segment {
    Segment {
        begins: read & marks::BEGINS != 0,
        synchronizes: read & marks::SYNCHRONIZES != 0,
        ends: read & marks::ENDS != 0,
        payload: work.payload,
        is_first_part: read & marks::FIRST_PART != 0,
        is_later_part: read & marks::LATER_PART != 0,
    }
}

/// The same with the ports of the first part, if it is another one of a packet
/// whose first part was led.
#[inline(always)]
pub(super) fn with_ports(tables: &impl Tables, work: &mut Work, read: u32) -> u32 {
    let known = read & marks::LATER_PART != 0 && has_ports_of_first(tables, work);
    let read = if known { read & !marks::NOTHING } else { read };
    work.blur(read.into()) as u32
}

#[inline(always)]
fn has_ports_of_first(tables: &impl Tables, work: &mut Work) -> bool {
    let first = tables.first_part(parts::BY_TRANSLATION);
    work.key.source_port = Port::from_network(first as u16);
    work.key.destination_port = Port::from_network((first >> 16) as u16);
    first & parts::FOUND != 0
}

/// Notes the first part of a packet that is led.
#[inline(always)]
pub(super) fn note_part(tables: &impl Tables, work: &mut Work) {
    work.part.source_port = work.key.source_port;
    work.part.destination_port = work.key.destination_port;
    tables.note_part(parts::BY_TRANSLATION);
}

#[inline(always)]
pub(super) const fn has_ports(read: u32) -> bool {
    read & marks::NOTHING == 0
}
