//! Packets that cross the cluster's edge, or that are to a service and met no
//! socket hook: led to a backend, given the node's address, refused.
//!
//! A flow has two rows: its packets as they come and what they become, and
//! likewise for the answers. The rows say all, so that a flow goes on when the
//! service behind it changes.

mod flow;
mod perform;
mod port;
mod read;
mod stranded;

pub use flow::begun;
use flow::{OWN, follow, open, step_aside};
pub(crate) use perform::{Direct, carry_out, prohibited};
pub use perform::{performed_v4, performed_v6};
pub use port::claimed;
use read::{has_ports, marks, note_part, segment_of, with_ports};
pub use read::{read_v4, read_v6};
pub use stranded::stranded;

use crate::forward::Tables;
use crate::packet::Packet;
use crate::policy::TRANSLATED_SENDER;
use crate::quoted;
use crate::table::{
    Endpoint, FLOW_LEAVES, FLOW_REPLY, Flow, FlowKey, Frontend, RANGE_NODE, RANGE_OUTSIDE,
    RANGE_SERVICES, ServiceAddress, Work,
};
use crate::translate::{finish, rewrite, rewrite_later_part};
use crate::verdict::{DropReason, FinalVerdict, Verdict};
use crate::wire::{Frame, Header, Ip, Ipv4, Ipv6};

/// What is to be done with a packet, in one word: what a function of its own can
/// return in the kernel. (Of an enum the compiler copies what was never written,
/// which the verifier lets nobody do.)
#[derive(Clone, Copy)]
pub(crate) struct Packed(u64);

impl Packed {
    /// It becomes what the flow of [`Work`] says. This and the next two are asked
    /// about.
    const SEND: u64 = 1 << 32;
    /// To its address as it is.
    const PASS: u64 = 2 << 32;
    /// Likewise, by the host's stack.
    const STACK: u64 = 3 << 32;
    const REFUSE: u64 = 4 << 32;
    const PROHIBIT: u64 = 5 << 32;
    const DROP: u64 = 6 << 32;
    /// The host's stack, and nothing more is asked.
    const DONE: u64 = 7 << 32;
    /// It is an error about a packet of the flow of [`Work`], and goes with answers
    /// to that.
    const TELL: u64 = 8 << 32;

    /// To its address as it is.
    pub(crate) const PASSES: Self = Self(Self::PASS);

    #[inline(always)]
    const fn kind(self) -> u64 {
        self.0 & !0xffff_ffff
    }

    #[inline(always)]
    const fn reason(self) -> DropReason {
        DropReason::from_index(self.0 as u32)
    }
}

#[inline(always)]
const fn refuse(reason: DropReason) -> u64 {
    Packed::REFUSE | reason as u64
}

#[inline(always)]
const fn dropped(reason: DropReason) -> u64 {
    Packed::DROP | reason as u64
}

/// What is to be done with a packet from a pod that is not simply to another one.
/// `of_sender`: as [`crate::policy::sent_by`].
#[inline(always)]
pub(crate) fn from_pod<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    of_sender: u32,
) -> Packed
where
    Frame<H>: Header,
{
    let read = packet.read(tables, !H::HAS_CHECKSUM, 1);
    let translated = of_sender & TRANSLATED_SENDER;
    let act = Packed(tables.decided_from_pod(read | translated, packet.ifindex()));
    if act.kind() == Packed::STACK && has_ports(read) && packet.stranded(tables) != 0 {
        return Packed(refuse(DropReason::NoBackends));
    }
    act
}

/// What is to be done with one that came in from outside and is not simply to a
/// pod.
#[inline(always)]
pub(crate) fn from_outside<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> Packed
where
    Frame<H>: Header,
{
    let read = packet.read(tables, !H::HAS_CHECKSUM, 0);
    Packed(tables.decided_from_outside(read, packet.ifindex()))
}

/// The flow whose answers the packet quotes.
#[inline(always)]
fn quoted_flow<'t, T: Tables>(tables: &'t T, work: &Work, read: u32) -> Option<&'t Flow> {
    if read & marks::QUOTES == 0 {
        return None;
    }
    tables.flow(&work.key)
}

/// What is to be done with a packet from a pod, of which [`Tables::work`] has what
/// was read: a [`Packed`]. `ifindex` is the link that it came in by.
#[inline(always)]
pub fn decided_from_pod(tables: &impl Tables, read: u32, ifindex: u32) -> u64 {
    let Some(work) = tables.work() else {
        return Packed::DONE;
    };
    let read = with_ports(tables, work, read);
    let decided = decide_from_pod(tables, work, read, ifindex);
    noted(tables, read, decided)
}

/// The decision, when the packet is noted if it is the first part of another one.
#[inline(always)]
fn noted(tables: &impl Tables, read: u32, decided: u64) -> u64 {
    if read & marks::FIRST_PART != 0
        && decided == Packed::SEND
        && let Some(work) = tables.work()
    {
        note_part(tables, work);
    }
    decided
}

#[inline(always)]
fn decide_from_pod(tables: &impl Tables, work: &mut Work, read: u32, ifindex: u32) -> u64 {
    let segment = segment_of(work, read);
    if has_ports(read)
        && let Some(flow) = follow(tables, &work.key, &mut work.back, &segment)
    {
        if flow.flags & FLOW_LEAVES != 0 {
            return Packed::STACK;
        }
        if flow.flags & FLOW_REPLY == 0 && read & TRANSLATED_SENDER == 0 {
            // Said before, and lost as its row was written.
            tables.set_translated(&work.key.source);
        }
        flow.copy_to(&mut work.flow);
        return Packed::SEND;
    }
    if let Some(flow) = quoted_flow(tables, work, read) {
        if flow.flags & FLOW_LEAVES != 0 {
            return Packed::DONE;
        }
        flow.copy_to(&mut work.flow);
        return Packed::TELL;
    }
    let endpoint = tables.endpoint(&work.destination);
    if endpoint.is_some_and(Endpoint::is_handed_over) {
        // Who comes next knows the connection if it is one.
        Packed::DONE
    } else if endpoint.is_some() || tables.route(&work.destination).is_some() {
        if has_ports(read) && segment.begins && read & TRANSLATED_SENDER != 0 {
            step_aside(ifindex, tables, work)
        } else {
            Packed::PASS
        }
    } else if has_ports(read)
        && let Some(frontend) = frontend(tables, &work.key)
    {
        open(ifindex, tables, work, frontend, &segment, false)
    } else {
        match tables.range(&work.destination) {
            RANGE_SERVICES if has_ports(read) => refuse(DropReason::NoService),
            RANGE_SERVICES => dropped(DropReason::from_index(read >> marks::REASON)),
            RANGE_NODE if read & marks::TUNNELLED != 0 => dropped(DropReason::Spoofed),
            _ => Packed::STACK,
        }
    }
}

/// As [`decided_from_pod`], of one from outside.
#[inline(always)]
pub fn decided_from_outside(tables: &impl Tables, read: u32, ifindex: u32) -> u64 {
    let Some(work) = tables.work() else {
        return Packed::DONE;
    };
    let read = with_ports(tables, work, read);
    let decided = decide_from_outside(tables, work, read, ifindex);
    noted(tables, read, decided)
}

#[inline(always)]
fn decide_from_outside(tables: &impl Tables, work: &mut Work, read: u32, ifindex: u32) -> u64 {
    let segment = segment_of(work, read);
    if has_ports(read)
        && let Some(flow) = follow(tables, &work.key, &mut work.back, &segment)
    {
        flow.copy_to(&mut work.flow);
        Packed::SEND
    } else if let Some(flow) = quoted_flow(tables, work, read) {
        flow.copy_to(&mut work.flow);
        Packed::TELL
    } else if has_ports(read)
        && let Some(frontend) = frontend(tables, &work.key)
    {
        open(ifindex, tables, work, frontend, &segment, true)
    } else if let Some(endpoint) = tables.endpoint(&work.destination) {
        unanswered(endpoint)
    } else {
        Packed::DONE
    }
}

/// What becomes of a packet to a pod that is no answer to one of its packets.
#[inline(always)]
const fn unanswered(endpoint: &Endpoint) -> u64 {
    if endpoint.is_handed_over() {
        Packed::DONE
    } else {
        Packed::PASS
    }
}

#[inline(always)]
fn frontend<'t, T: Tables>(tables: &'t T, key: &FlowKey) -> Option<&'t Frontend> {
    let protocol = key.protocol as u8;
    tables.frontend(&ServiceAddress::new(
        key.destination,
        key.destination_port,
        protocol,
    ))
}

/// By an uplink: what is a pod's, and to outside, gets the node's address.
#[inline(always)]
pub(crate) fn to_outside<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    let plain = frame.ip.is_plain();
    let of_pod = tables.endpoint(&source).is_some();
    let leaves = if of_pod {
        destination.is_routed() && tables.range(&destination) == RANGE_OUTSIDE
    } else {
        // The node's own, which may be answers to packets that were led to it.
        let node = tables.uplink(0);
        plain
            && node
                .is_some_and(|node| node.is_translated() && node.towards(&source) == Some(source))
    };
    if !leaves {
        return Verdict::Stack.into();
    }
    let marks = if plain { PLAIN } else { 0 } | if of_pod { OF_POD } else { 0 };
    let packed = packet.left(tables, !H::HAS_CHECKSUM, marks);
    match tables.work() {
        Some(work) => FinalVerdict::unpack(packed, work),
        None => Verdict::Drop(DropReason::FlowState).into(),
    }
}

/// Of a packet that leaves: no options; a pod's, else the node's own.
const PLAIN: u32 = 1;
const OF_POD: u32 = marks::OF_POD;

/// What becomes of a packet that leaves the node: as [`performed_v4`].
#[inline(always)]
pub fn left_v4<P: Packet>(packet: &mut P, tables: &impl Tables, marks: u32) -> u64 {
    left_packed::<Ipv4, P>(packet, tables, marks)
}

/// As [`left_v4`].
#[inline(always)]
pub fn left_v6<P: Packet>(packet: &mut P, tables: &impl Tables, marks: u32) -> u64 {
    left_packed::<Ipv6, P>(packet, tables, marks)
}

#[inline(always)]
fn left_packed<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, marks: u32) -> u64
where
    Frame<H>: Header,
{
    let left = left::<H, P>(packet, tables, marks);
    match left {
        Ok(ports) => {
            if ports != 0 {
                finish::<H, P>(packet, ports);
            }
            FinalVerdict::from(Verdict::Stack).word()
        }
        Err(reason) => FinalVerdict::from(Verdict::Drop(reason)).word(),
    }
}

/// Gives a packet that leaves the cluster the node's address.
#[inline(always)]
fn left<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    marks: u32,
) -> Result<u32, DropReason>
where
    Frame<H>: Header,
{
    if marks & PLAIN == 0 {
        return Err(DropReason::Protocol);
    }
    let read = packet.read(tables, !H::HAS_CHECKSUM, 0) | marks & OF_POD;
    let act = Packed(tables.decided_to_outside(read, packet.ifindex()));
    let Some(work) = tables.work() else {
        return Err(DropReason::FlowState);
    };
    match act.kind() {
        Packed::SEND if work.place == Work::NOWHERE => {
            rewrite_later_part::<H, P>(packet, &work.key, &work.flow);
            Ok(0)
        }
        Packed::SEND => rewrite::<H, P>(packet, &work.key, &work.flow, work.place),
        Packed::TELL => quoted::rewrite::<H, P>(packet, &work.key, &work.flow).map(|()| 0),
        Packed::DROP => Err(act.reason()),
        _ => Ok(0),
    }
}

/// As [`decided_from_pod`], of one that leaves the node: it becomes what the flow of
/// [`Work`] says, or stays as it is.
#[inline(always)]
pub fn decided_to_outside(tables: &impl Tables, read: u32, ifindex: u32) -> u64 {
    let Some(work) = tables.work() else {
        return dropped(DropReason::FlowState);
    };
    let read = with_ports(tables, work, read);
    let decided = decide_to_outside(tables, work, read, ifindex);
    noted(tables, read, decided)
}

#[inline(always)]
fn decide_to_outside(tables: &impl Tables, work: &mut Work, read: u32, ifindex: u32) -> u64 {
    let segment = segment_of(work, read);
    let of_pod = read & marks::OF_POD != 0;
    if has_ports(read) {
        if let Some(flow) = follow(tables, &work.key, &mut work.back, &segment) {
            flow.copy_to(&mut work.flow);
            return Packed::SEND;
        }
    } else if let Some(flow) = quoted_flow(tables, work, read) {
        flow.copy_to(&mut work.flow);
        return Packed::TELL;
    } else if of_pod {
        return dropped(DropReason::from_index(read >> marks::REASON));
    }
    let (key, flow) = (&work.key, &mut work.flow);
    let of_link = tables
        .uplink(ifindex)
        .and_then(|up| up.towards(&key.destination));
    // A link without an address of that family is as it always was; and who
    // answers somebody who came in by the pod's own address keeps that.
    let Some(address) = of_link.filter(|_| segment.begins && of_pod) else {
        return Packed::DONE;
    };
    flow.destination = key.destination;
    flow.destination_port = key.destination_port;
    flow.set = 0;
    flow.id = 0;
    flow.ifindex = ifindex;
    flow.source = address;
    flow.bytes = 0;
    tables.begun(ifindex, OWN | FLOW_LEAVES)
}

#[cfg(test)]
mod tests;
