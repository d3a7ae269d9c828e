//! What was decided of a packet is done, if the policies of the pods at its ends
//! allow it.

use super::{Packed, dropped};
use crate::Address;
use crate::answer;
use crate::forward::{Tables, deliver, fits, forward, is_for_stack, one_hop_less};
use crate::packet::Packet;
use crate::policy::{RECEIVER, SENDER, Says, TO_STACK, answers, denied, got_by};
use crate::quoted;
use crate::table::{Endpoint, Route, Work};
use crate::translate::{clamp, finish, rewrite, rewrite_later_part};
use crate::verdict::{DropReason, FinalVerdict, Verdict};
use crate::wire::{Frame, Header, IPPROTO_TCP, Ip, Ipv4, Ipv6};

/// Where a packet goes that is known without looking further.
#[derive(Clone, Copy)]
pub(crate) enum Direct<'t> {
    Pod(&'t Endpoint),
    Node(&'t Route),
    /// It is not known.
    No,
}

/// Asks the policies of the pods at the ends, then does it.
#[inline(always)]
pub(crate) fn carry_out<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    mut act: Packed,
    direct: Direct<'_>,
    destination: &Address,
    of_sender: u32,
) -> FinalVerdict
where
    Frame<H>: Header,
{
    // Nobody is to be asked, or was just now: no more than that is done.
    match direct {
        Direct::Pod(endpoint) => {
            let asked = of_sender | got_by(Some(endpoint));
            if may_go::<H, P>(packet, tables, asked) {
                return deliver::<H, P>(packet, endpoint).into();
            }
        }
        Direct::Node(route) => {
            if may_go::<H, P>(packet, tables, of_sender) {
                return to_node::<H, P>(packet, tables, route);
            }
        }
        Direct::No => {}
    }
    let Some(work) = tables.work() else {
        return Verdict::Stack.into();
    };
    act = Packed(work.blur(act.0));
    let kind = act.kind();
    if kind <= Packed::STACK {
        let flow = (kind == Packed::SEND).then_some(&work.flow);
        let to = flow.map_or(destination, |flow| &flow.destination);
        let asked = match direct {
            Direct::Pod(endpoint) => of_sender | got_by(Some(endpoint)),
            Direct::Node(_) => of_sender,
            Direct::No if kind == Packed::STACK => of_sender | TO_STACK,
            Direct::No => of_sender | got_by(tables.endpoint(to)),
        };
        if asked & (SENDER | RECEIVER) != 0 {
            match denied::<H, P>(packet, tables, flow.is_some(), asked) {
                Says::Yes => {}
                Says::Ours if kind == Packed::STACK => return Verdict::StackAtOnce.into(),
                Says::Ours => {}
                Says::Leave => act = Packed(Packed::DONE),
                Says::No(reason) if answers(tables, reason) => {
                    act = Packed(Packed::PROHIBIT | reason as u64);
                }
                Says::No(reason) => act = Packed(dropped(reason)),
            }
        }
    }
    match (act.kind(), direct) {
        (Packed::STACK | Packed::DONE, _) => return Verdict::Stack.into(),
        (Packed::DROP, _) => return Verdict::Drop(act.reason()).into(),
        (Packed::PASS, Direct::Pod(endpoint)) => return deliver::<H, P>(packet, endpoint).into(),
        (Packed::PASS, Direct::Node(route)) => return to_node::<H, P>(packet, tables, route),
        _ => {}
    }
    work.destination = *destination;
    done::<H, P>(packet, tables, work, act)
}

/// Refuses what policies deny a packet that comes to a pod.
#[inline(always)]
pub(crate) fn prohibited<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    reason: DropReason,
) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(work) = tables.work() else {
        return Verdict::Drop(reason).into();
    };
    let act = Packed(Packed::PROHIBIT | reason as u64);
    done::<H, P>(packet, tables, work, act)
}

#[inline(always)]
fn done<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    work: &mut Work,
    act: Packed,
) -> FinalVerdict
where
    Frame<H>: Header,
{
    let packed = packet.performed(tables, !H::HAS_CHECKSUM, act.0);
    let packed = work.blur(packed);
    FinalVerdict::unpack(packed, work)
}

#[inline(always)]
fn may_go<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, asked: u32) -> bool
where
    Frame<H>: Header,
{
    asked & (SENDER | RECEIVER) == 0 || packet.settled(tables, !H::HAS_CHECKSUM, asked) != 0
}

#[inline(always)]
fn to_node<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, route: &Route) -> FinalVerdict
where
    Frame<H>: Header,
{
    if is_for_stack::<H, P>(packet, tables, route) {
        Verdict::Stack.into()
    } else {
        forward::<H, P>(packet, route).into()
    }
}

/// Does what was decided: a [`FinalVerdict`], with what does not fit into the word
/// in [`Work`].
#[inline(always)]
pub fn performed_v4<P: Packet>(packet: &mut P, tables: &impl Tables, act: u64) -> u64 {
    performed::<Ipv4, P>(packet, tables, act)
}

/// As [`performed_v4`].
#[inline(always)]
pub fn performed_v6<P: Packet>(packet: &mut P, tables: &impl Tables, act: u64) -> u64 {
    performed::<Ipv6, P>(packet, tables, act)
}

#[inline(always)]
fn performed<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, act: u64) -> u64
where
    Frame<H>: Header,
{
    let verdict = perform::<H, P>(packet, tables, Packed(act));
    if verdict.ports != 0 {
        finish::<H, P>(packet, verdict.ports);
    }
    match tables.work() {
        Some(work) => verdict.pack(work),
        None => 0,
    }
}

#[inline(always)]
fn perform<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, act: Packed) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(work) = tables.work() else {
        return Verdict::Stack.into();
    };
    let is_error = act.kind() == Packed::TELL;
    let later_part = act.kind() == Packed::SEND && work.place == Work::NOWHERE;
    let flow = match act.kind() {
        Packed::REFUSE => return answer::refuse::<H, P>(packet, act.reason(), false).into(),
        Packed::PROHIBIT => return answer::refuse::<H, P>(packet, act.reason(), true).into(),
        Packed::SEND | Packed::TELL => Some((&work.key, &work.flow)),
        _ => None,
    };
    let to = flow.map_or(&work.destination, |(_, flow)| &flow.destination);
    let endpoint = tables.endpoint(to);
    let route = match endpoint {
        Some(_) => None,
        None => tables.route(to),
    };
    let mut by_stack = false;
    if let Some(route) = route
        && is_for_stack::<H, P>(packet, tables, route)
    {
        match flow {
            None => return Verdict::Stack.into(),
            Some((key, flow))
                if !is_error
                    && flow.source == key.source
                    && packet.at::<Frame<H>>(0).is_some_and(|f| f.ip.may_be_cut()) =>
            {
                by_stack = true;
            }
            // The stack would tell who sent it about a packet that he did not send.
            Some(_) if fits::<H, P>(packet, route) => {}
            // No errors about errors (RFC 1122, 3.2.2; RFC 4443, 2.4).
            // Nor about parts of what they were said about.
            Some(_) if is_error || later_part => return Verdict::Drop(DropReason::TooLong).into(),
            Some(_) => return answer::too_long::<H, P>(packet, route.mtu).into(),
        }
    }
    let mut ports = 0;
    if let Some((key, flow)) = flow
        && is_error
    {
        if let Err(reason) = quoted::rewrite::<H, P>(packet, key, flow) {
            return Verdict::Drop(reason).into();
        }
    } else if let Some((key, flow)) = flow
        && later_part
    {
        rewrite_later_part::<H, P>(packet, key, flow);
    } else if let Some((key, flow)) = flow {
        // Both ways of the flow come by here, and one may be narrower: not all
        // who send listen to those who say so.
        let narrow = [tables.route(&key.source), route]
            .into_iter()
            .flatten()
            .map(|route| route.mtu)
            .min();
        let clamped = match narrow {
            Some(mtu) if key.protocol == u32::from(IPPROTO_TCP) && work.place == 0 => {
                clamp::<H, P>(packet, mtu)
            }
            _ => Ok(()),
        };
        match clamped.and_then(|()| rewrite::<H, P>(packet, key, flow, work.place)) {
            Ok(changed) => ports = changed,
            Err(reason) => return Verdict::Drop(reason).into(),
        }
    }
    if let Some(endpoint) = endpoint {
        let verdict = deliver::<H, P>(packet, endpoint);
        return FinalVerdict {
            ports,
            ..verdict.into()
        };
    }
    if let Some(route) = route.filter(|_| !by_stack) {
        let verdict = forward::<H, P>(packet, route);
        return FinalVerdict {
            ports,
            ..verdict.into()
        };
    }
    // Not through the stack: it takes a packet with an address of its own as
    // source, coming in by a link, for a forgery.
    let ifindex = flow.map_or(0, |(_, flow)| flow.ifindex);
    if ifindex == 0 || by_stack {
        // To another node, from a pod.
        return FinalVerdict {
            ports,
            ..Verdict::Stack.into()
        };
    }
    let verdict = one_hop_less::<H, P>(packet, Verdict::Route { ifindex });
    FinalVerdict {
        ports,
        ..verdict.into()
    }
}
