//! Flows: found, and begun.

use super::port::claim;
use super::{Packed, dropped, refuse};
use crate::Address;
use crate::forward::Tables;
use crate::service::{Behind, Chosen, From, behind};
use crate::table::{
    BackendKey, FLAG_HOST_PORT, FLAG_LOCAL, FLOW_AWAITED, FLOW_CLOSING, FLOW_LEAVES, FLOW_LINGERS,
    FLOW_RENUMBERED, FLOW_REPLY, FLOW_TRACKS_BACKEND, Flow, FlowKey, Frontend, NO_SHARE,
    RANGE_OUTSIDE, RANGE_PODS, ServiceAddress, Work, flow_patience,
};
use crate::translate::Segment;
use crate::verdict::DropReason;
use crate::wire::IPPROTO_TCP;

/// After so many seconds of silence a SYN begins anew: its backend may be gone,
/// which connections do not track.
pub(super) const ANEW: u32 = 600;

/// Payload of a flow that its backend is told of at once, bytes: there is room
/// for four times as much.
const MANY: u32 = 1 << 30;

/// The flow of a packet. `None` if it is of none, or begins a new one. `other`: room
/// for another key.
#[inline(always)]
pub(super) fn follow<'t, T: Tables>(
    tables: &'t T,
    key: &FlowKey,
    other: &mut FlowKey,
    segment: &Segment,
) -> Option<&'t Flow> {
    let flow = tables.flow(key)?;
    if flow.flags & FLOW_AWAITED != 0 {
        return None;
    }
    if flow.flags & FLOW_CLOSING != 0 && segment.synchronizes {
        // What follows is of the new connection, which may not come by a service.
        tables.forget(key);
        return None;
    }
    let now = tables.now();
    if flow.flags & FLOW_REPLY == 0 && segment.begins {
        // Who begins after a long time begins anew; so does who outlived the
        // backend, if there are no connections to it.
        let (set, id) = (flow.set, flow.id);
        if now.wrapping_sub(flow.last) >= flow_patience(key.protocol, true).min(ANEW)
            || flow.flags & FLOW_TRACKS_BACKEND != 0 && !tables.is_alive(&BackendKey { set, id })
        {
            return None;
        }
    }
    let mut closing = if segment.ends { FLOW_CLOSING } else { 0 };
    if closing & !flow.flags != 0 && flow.flags & FLOW_REPLY != 0 {
        *other = requests_of(flow, key.protocol);
        if ends_first(tables, key, other) {
            closing |= FLOW_LINGERS;
        }
    }
    let counted = flow.bytes;
    if flow.set != 0 && segment.payload != 0 {
        tables.count(key, flow, segment.payload);
    }
    if flow.last != now || closing & !flow.flags != 0 || counted >= MANY {
        tables.touch(key, now, closing);
        if flow.flags & FLOW_RENUMBERED != 0 {
            // Said before, and lost if its row was written just then.
            tables.set_renumbered(&flow.destination);
        }
    }
    Some(flow)
}

/// Whether who was asked ends a connection before the client does, from a port that is
/// not the client's own.
#[inline(always)]
fn ends_first(tables: &impl Tables, answers: &FlowKey, requests: &FlowKey) -> bool {
    let is_own =
        requests.source == answers.destination && requests.source_port == answers.destination_port;
    let is_open = |flow: &Flow| flow.flags & FLOW_CLOSING == 0;
    answers.protocol == u32::from(IPPROTO_TCP)
        && !is_own
        && tables.flow(requests).is_some_and(is_open)
}

/// Key of the row that a flow's requests have, from that of its answers.
#[inline(always)]
fn requests_of(answers: &Flow, protocol: u32) -> FlowKey {
    FlowKey {
        source: answers.destination,
        destination: answers.source,
        source_port: answers.destination_port,
        destination_port: answers.source_port,
        protocol,
    }
}

/// The first packet of a flow to a frontend. `outside`: it came from there.
#[inline(always)]
pub(super) fn open(
    ifindex: u32,
    tables: &impl Tables,
    work: &mut Work,
    frontend: &Frontend,
    segment: &Segment,
    outside: bool,
) -> u64 {
    let key = &work.key;
    work.flow.bytes = segment.payload;
    let begins = segment.begins;
    if let Some(node) = tables.uplink(0)
        && node.leaves(begins)
    {
        return Packed::DONE;
    }
    let flags = frontend.flags();
    // To a NodePort pods of other nodes are clients like any other: who chooses a
    // node gets what is there (`externalTrafficPolicy` in the API's reference).
    let from = if !outside {
        From::Pod
    } else if flags & FLAG_LOCAL == 0 {
        From::Outside
    } else {
        From::OutsideToHere
    };
    let client = (key.source, key.source_port);
    let Chosen { key: id, backend } = match behind(tables, frontend, client, from) {
        Behind::Chosen(chosen) => chosen,
        Behind::Keep => return Packed::DONE,
        Behind::Missing => return dropped(DropReason::BackendMissing),
        Behind::Forbidden => return dropped(DropReason::SourceRange),
        Behind::NobodyHere => return dropped(DropReason::NoLocalBackend),
        Behind::Nobody => {
            let protocol = key.protocol as u8;
            let address = ServiceAddress::new(key.destination, key.destination_port, protocol);
            tables.count_refused(&address);
            return refuse(DropReason::NoBackends);
        }
    };
    let to = backend.address;
    let to_pod = tables.endpoint(&to).is_some() || tables.route(&to).is_some();
    // A backend that is no pod: another node's, which answers the pod itself, or
    // who came by here.
    let (mut link, mut itself) = (0, false);
    if !to_pod {
        itself = tables.uplink(ifindex).and_then(|up| up.towards(&to)) == Some(to);
        if !outside && (itself || tables.range(&to) == RANGE_OUTSIDE) {
            return dropped(DropReason::BackendAway);
        }
        if itself {
            // Its answers are found where they leave.
            tables.set_node_translated();
        } else if outside {
            link = ifindex;
        }
    }
    // Who answers must answer by this node: whom the client's own address leads
    // elsewhere, straight to a pod of another node, or to itself, gets the node's.
    let own = if outside {
        let straight = || flags & FLAG_HOST_PORT == 0 && tables.range(&key.source) == RANGE_PODS;
        !itself && (from != From::OutsideToHere || straight())
    } else {
        to == key.source
    };
    if own {
        let Some(address) = node_address(tables, link, &to) else {
            return dropped(DropReason::Rewrite);
        };
        work.flow.source = address;
    } else {
        if !outside {
            tables.set_translated(&key.source);
        }
        work.flow.source = key.source;
    }
    let flow = &mut work.flow;
    flow.destination = to;
    flow.destination_port = backend.port;
    flow.set = id.set;
    flow.id = id.id;
    flow.ifindex = link;
    tables.begun(ifindex, if own { OWN } else { 0 })
}

/// What becomes of a pod's packet that begins something straight to a pod or
/// node. Its port may be that of a flow of the same pod which was led to that very
/// backend, as the sender sees two destinations: then answers would be taken for
/// that flow's, and this one gets another port.
#[inline(always)]
pub(super) fn step_aside(ifindex: u32, tables: &impl Tables, work: &mut Work) -> u64 {
    let (key, back) = (&work.key, &mut work.back);
    back.source = key.destination;
    back.destination = key.source;
    back.source_port = key.destination_port;
    back.destination_port = key.source_port;
    back.protocol = key.protocol;
    let Some(answers) = tables.flow(back) else {
        return Packed::PASS;
    };
    if answers.flags & FLOW_REPLY == 0 {
        return Packed::PASS;
    }
    if is_over(tables, answers, key.protocol, tables.now()) {
        tables.forget(back);
        return Packed::PASS;
    }
    if tables.uplink(0).is_some_and(|node| node.is_retired()) {
        // The engine that comes next finds a port for it, by the stack.
        return Packed::DONE;
    }
    let flow = &mut work.flow;
    flow.source = key.source;
    flow.destination = key.destination;
    flow.destination_port = key.destination_port;
    flow.set = 0;
    flow.id = 0;
    flow.ifindex = 0;
    flow.bytes = 0;
    tables.set_renumbered(&key.source);
    tables.begun(ifindex, OWN | FLOW_RENUMBERED)
}

/// Of the flow that begins: the source is the node's, or a pod's that needs
/// another port. Beside `FLOW_*`.
pub(super) const OWN: u32 = 1 << 31;

/// Remembers the flow of [`Tables::work`], of which the addresses are known: a
/// [`Packed`]. `kind`: [`OWN`], [`FLOW_LEAVES`], [`FLOW_RENUMBERED`].
#[inline(always)]
pub fn begun(tables: &impl Tables, ifindex: u32, kind: u32) -> u64 {
    let Some(work) = tables.work() else {
        return dropped(DropReason::FlowState);
    };
    let Work {
        key,
        flow,
        back,
        answer,
        ..
    } = work;
    let share = tables.takes_share(&key.source);
    if share == NO_SHARE {
        return dropped(DropReason::FlowShare);
    }
    let tracks = flow.set != 0 && key.protocol != u32::from(IPPROTO_TCP);
    flow.flags = kind & FLOW_LEAVES | if tracks { FLOW_TRACKS_BACKEND } else { 0 };
    flow.last = tables.now();
    flow.source_port = key.source_port;
    answer.source = key.destination;
    answer.destination = key.source;
    answer.source_port = key.destination_port;
    answer.destination_port = key.source_port;
    answer.set = flow.set;
    answer.id = flow.id;
    answer.ifindex = ifindex;
    answer.flags = flow.flags & FLOW_TRACKS_BACKEND | kind & FLOW_RENUMBERED | FLOW_REPLY;
    answer.last = 0;
    answer.bytes = 0;
    back.source = flow.destination;
    back.destination = flow.source;
    back.source_port = flow.destination_port;
    back.destination_port = flow.source_port;
    back.protocol = key.protocol;
    let claimed = if kind & OWN == 0 {
        tables.remember(back, answer)
    } else {
        let claimed = claim(tables, key, (share >> 32) as u32, share as u32);
        flow.source_port = back.destination_port;
        claimed
    };
    if let Err(reason) = claimed.and_then(|()| tables.remember(key, flow)) {
        return dropped(reason);
    }
    Packed::SEND
}

/// Whether a flow, known by its answers, has ended or was silent for long.
#[inline(always)]
pub(super) fn is_over(tables: &impl Tables, answers: &Flow, protocol: u32, now: u32) -> bool {
    let replied = answers.last != 0;
    let patience = flow_patience(protocol, replied);
    let over =
        |flow: &Flow| flow.flags & FLOW_CLOSING != 0 || now.wrapping_sub(flow.last) >= patience;
    if replied && !over(answers) {
        return false;
    }
    let requests = tables.flow(&requests_of(answers, protocol));
    requests.is_none_or(over)
}

/// With which address to send to `to`: that of the link, else the node's.
#[inline(always)]
fn node_address(tables: &impl Tables, link: u32, to: &Address) -> Option<Address> {
    let of = |ifindex| tables.uplink(ifindex).and_then(|up| up.towards(to));
    if link != 0
        && let Some(address) = of(link)
    {
        return Some(address);
    }
    of(0)
}
