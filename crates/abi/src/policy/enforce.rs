//! Whether a packet may go on: by its connection, or by the rules if it begins
//! one.

use crate::Address;
use crate::forward::Tables;
use crate::packet::Packet;
use crate::policy::connection::marks::{
    BEGINS, ENDS, ERROR, FIRST_PART, LATER_PART, LOCAL, NODE, OUT, RESETS,
};
use crate::policy::connection::{
    Connection, ConnectionKey, DenialKey, FragmentKey, Next, POLICY_REJECTS, Policing, PolicyState,
};
use crate::policy::read::read;
use crate::policy::{NO_POLICY, PolicyTables, judge};
use crate::table::{Endpoint, Flow};
use crate::verdict::DropReason;
use crate::wire::{Frame, Header, IPPROTO_TCP, Ip};

/// The tables in which connections and denials are kept.
pub trait Connections: PolicyTables {
    fn policy_state(&self) -> PolicyState;
    /// It is an address of this node.
    fn is_own(&self, address: &Address) -> bool;
    /// Other CPUs have the same row: it is read and written by words.
    #[expect(clippy::mut_from_ref, reason = "a row of the kernel's is everybody's")]
    fn connection(&self, key: &ConnectionKey) -> Option<&mut Connection>;
    /// Remembers a connection, in the place of any other of that key; false if
    /// the table is full.
    fn remember_connection(&self, key: &ConnectionKey, row: &Connection) -> bool;
    fn forget_connection(&self, key: &ConnectionKey);
    /// When the first part of a packet was let pass.
    fn fragment(&self, key: &FragmentKey) -> Option<u32>;
    fn remember_fragment(&self, key: &FragmentKey, now: u32);
    /// Counts a packet that policies stopped.
    fn count_denied(&self, key: &DenialKey, now: u32);
    /// Room to work in, for one packet.
    #[expect(clippy::mut_from_ref, reason = "each packet has its own")]
    fn policing(&self) -> Option<&mut Policing>;
}

/// Whose policies a packet is asked about: who sends it, who gets it.
pub(crate) const SENDER: u32 = 1;
pub(crate) const RECEIVER: u32 = 2;
/// A pod of this node sent it, by its own address.
pub(crate) const BY_POD: u32 = 4;
/// Who sends it has had packets led to backends.
pub(crate) const TRANSLATED_SENDER: u32 = 8;
/// It goes to the host's stack, and may be for the node itself: that is never
/// denied.
pub(crate) const TO_STACK: u32 = 16;

/// For how many seconds the other parts of a packet may follow the first (Linux:
/// `ipfrag_time`).
const PARTS_FOLLOW: u32 = 30;

/// A reason that is none: it may go on.
const ALLOWED: u32 = u32::MAX;

/// Whose policies a packet between two is to be asked about.
#[inline(always)]
pub(crate) fn sides(sender: Option<&Endpoint>, receiver: Option<&Endpoint>) -> u32 {
    let mut sides = 0;
    if sender.is_some_and(Endpoint::is_tracked) {
        sides |= SENDER;
    }
    if receiver.is_some_and(Endpoint::is_tracked) {
        sides |= RECEIVER;
    }
    sides
}

/// Whether a packet may not go on, as it came and before `flow` translates it.
#[inline(always)]
pub(crate) fn denied<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    flow: Option<&Flow>,
    sides: u32,
) -> Option<DropReason>
where
    Frame<H>: Header,
{
    match asked::<H, P>(packet, tables, flow, sides, 0) {
        ALLOWED => None,
        reason => Some(DropReason::from_index(reason)),
    }
}

/// Whether who is denied for that reason gets an answer.
#[inline(always)]
pub(crate) fn answers(tables: &impl Tables, reason: DropReason) -> bool {
    reason as u32 == DropReason::Policy as u32 && tables.policy_state().flags & POLICY_REJECTS != 0
}

/// Whether a packet that the host's stack sends to a pod may not. `own`: it is
/// the node's own.
#[inline(always)]
pub(crate) fn denied_to_pod<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    own: bool,
) -> Option<DropReason>
where
    Frame<H>: Header,
{
    let marks = if own { NODE } else { 0 };
    match asked::<H, P>(packet, tables, None, RECEIVER, marks) {
        ALLOWED => None,
        reason => Some(DropReason::from_index(reason)),
    }
}

/// A function of its own: with a stack of its own.
#[inline(never)]
fn asked<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    flow: Option<&Flow>,
    sides: u32,
    more: u32,
) -> u32
where
    Frame<H>: Header,
{
    let Some(policing) = tables.policing() else {
        return DropReason::Policy as u32;
    };
    let Some(marks) = read::<H, P>(packet, policing, sides) else {
        return if more & NODE != 0 {
            ALLOWED
        } else {
            DropReason::Unreadable as u32
        };
    };
    let local = if sides & BY_POD != 0 { LOCAL } else { 0 };
    let marks = policing.blur(marks | more | local);
    let sides = policing.blur(sides);
    if let Some(flow) = flow
        && marks & ERROR == 0
    {
        policing.ends.destination = flow.destination;
        policing.ends.destination_port = flow.destination_port;
    }
    let answer = both(tables, policing, marks, sides);
    if answer != ALLOWED && sides & TO_STACK != 0 && tables.is_own(&policing.ends.destination) {
        return ALLOWED;
    }
    if answer == DropReason::Policy as u32 {
        tables.count_denied(&policing.denial, tables.now());
    }
    answer
}

#[inline(always)]
fn both(tables: &impl Tables, policing: &mut Policing, marks: u32, sides: u32) -> u32 {
    if sides & SENDER != 0 {
        let answer = side(tables, policing, marks | OUT);
        let answer = policing.blur(answer);
        if answer != ALLOWED {
            return answer;
        }
    }
    if sides & RECEIVER != 0 {
        let answer = side(tables, policing, marks);
        return policing.blur(answer);
    }
    ALLOWED
}

/// What the pod at one end says: [`ALLOWED`], or the number of a reason. A function of its own: two callers, one verification each.
#[inline(never)]
fn side<T: Tables>(tables: &T, policing: &mut Policing, marks: u32) -> u32 {
    policing.key.set(&policing.ends, marks);
    let now = tables.now();
    if marks & (FIRST_PART | LATER_PART) != 0 {
        let (key, fragment) = (&policing.key, &mut policing.fragment);
        fragment.pod = key.pod;
        fragment.other = key.other;
        fragment.id = policing.id;
        fragment.protocol = key.protocol | if marks & OUT != 0 { 256 } else { 0 };
        if marks & LATER_PART != 0 {
            let first = tables.fragment(&policing.fragment);
            let follows = first.is_some_and(|first| now.wrapping_sub(first) <= PARTS_FOLLOW);
            return if follows || marks & NODE != 0 {
                ALLOWED
            } else {
                DropReason::Fragment as u32
            };
        }
    }
    let answer = connection(tables, policing, marks, now);
    if answer == ALLOWED && marks & FIRST_PART != 0 {
        tables.remember_fragment(&policing.fragment, now);
    }
    answer
}

#[inline(always)]
fn connection<T: Tables>(tables: &T, policing: &mut Policing, mut marks: u32, now: u32) -> u32 {
    let state = tables.policy_state();
    let from_other = marks & OUT == 0;
    let mut known = tables.connection(&policing.key).filter(|row| {
        let is_over = row.is_over(policing.key.protocol, now);
        !is_over && (marks & BEGINS == 0 || row.is_inward() == from_other)
    });
    if known.is_none() {
        if marks & NODE != 0 {
            return ALLOWED;
        }
        if marks & ERROR != 0 {
            // Of no connection that is known, it is what it is; nothing follows.
            policing.key.is_error(policing.source, policing.icmp, marks);
            marks |= ENDS;
        }
    }
    let inward = known.as_ref().map_or(from_other, |row| row.is_inward());
    let inward = policing.blur(inward.into()) != 0;
    let kept = known.as_ref().and_then(|row| row.outcome(state.generation));
    let outcome = match kept {
        Some(outcome) => outcome,
        None => {
            policing.inward = inward.into();
            judged(tables, policing);
            if let Some(row) = &mut known {
                row.set_outcome(policing.outcome, state.generation);
            }
            policing.outcome
        }
    };
    let key = &policing.key;
    if !outcome.is_allowed() && marks & NODE == 0 {
        if known.is_none() && key.protocol == u32::from(IPPROTO_TCP) && marks & BEGINS == 0 {
            // In the middle of what is not known: nobody asks for a rule here.
            return DropReason::NoConnection as u32;
        }
        policing.denial.set(key, inward, outcome.by());
        return DropReason::Policy as u32;
    }
    if let Some(row) = known {
        if marks & ERROR == 0 {
            match row.next(marks) {
                Next::Ends => tables.forget_connection(key),
                Next::Stays { flags } => row.touch(flags, now),
            }
        }
        return ALLOWED;
    }
    if marks & (ENDS | RESETS) != 0 {
        // Nothing more is to come.
        return ALLOWED;
    }
    policing.row = Connection::new(from_other, now);
    policing.row.set_outcome(outcome, state.generation);
    if tables.remember_connection(key, &policing.row) || answers_pass(tables, &key.pod, from_other)
    {
        ALLOWED
    } else {
        DropReason::ConnectionsFull as u32
    }
}

/// A function of its own: with a stack of its own.
#[inline(never)]
fn judged<T: Tables>(tables: &T, policing: &mut Policing) {
    let question = policing.key.question(policing.inward != 0);
    policing.outcome = judge(tables, &question);
}

/// Whether the answers to a connection pass without it: nothing restricts the
/// other direction of the pod.
#[inline(always)]
fn answers_pass(tables: &impl PolicyTables, pod: &Address, inward: bool) -> bool {
    tables.pod(pod).is_some_and(|pod| {
        let answers = if inward { pod.egress } else { pod.ingress };
        answers == NO_POLICY
    })
}
