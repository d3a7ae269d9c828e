//! Whether a packet may go on: by its connection, or by the rules if it begins
//! one.

use crate::forward::Tables;
use crate::packet::Packet;
use crate::parts;
use crate::policy::connection::marks::{
    BEGINS, ENDS, ERROR, FIRST_PART, LATER_PART, LOCAL, NODE, OUT, RESETS,
};
use crate::policy::connection::{
    Connection, ConnectionKey, Next, Place, ends_of_row, first, place, placed,
};
use crate::policy::question::{
    DenialKey, Judgement, POLICY_ALONE, POLICY_OBSERVES, POLICY_REJECTS, POLICY_RETIRED, Policing,
    PolicyState,
};
use crate::policy::read::read;
use crate::policy::{BY_NO_CONNECTION, NO_POLICY, PolicyPod, PolicyTables, judge_side};
use crate::table::{Endpoint, RENUMBERED, TRACKED, TRANSLATED};
use crate::verdict::DropReason;
use crate::wire::{Frame, Header, IPPROTO_TCP, Ip, Ipv4, Ipv6};
use crate::{Address, Port};

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
    fn forget_connection(&self, key: &ConnectionKey, row: &Connection);
    /// One of [`Place::COUNT`]. Other CPUs have the same, likewise.
    #[expect(clippy::mut_from_ref, reason = "a row of the kernel's is everybody's")]
    fn place(&self, index: u32) -> Option<&mut Place>;
    /// Changes a word in one step if it still is what it was, after all that was
    /// written before; whether it was.
    fn change(&self, word: &mut u64, from: u64, to: u64) -> bool;
    /// What was judged last of questions with this slot, if that is remembered.
    #[inline(always)]
    fn judgement(&self, _slot: u32) -> Option<&mut Judgement> {
        None
    }
    /// Counts a packet that policies stopped.
    fn count_denied(&self, key: &DenialKey, now: u32);
    /// Room to work in, for one packet.
    #[expect(clippy::mut_from_ref, reason = "each packet has its own")]
    fn policing(&self) -> Option<&mut Policing>;
    /// [`policed`]. In the kernel a function that the verifier walks through once,
    /// whoever calls it.
    #[inline(always)]
    fn policed(&self, marks: u32, sides: u32) -> u32
    where
        Self: Tables + Sized,
    {
        policed(self, marks, sides)
    }
    /// [`noted`], likewise.
    #[inline(always)]
    fn noted(&self, marks: u32, sides: u32) -> u32
    where
        Self: Tables + Sized,
    {
        noted(self, marks, sides)
    }
    /// [`placed`], likewise.
    #[inline(always)]
    fn placed(&self, act: u32) -> u32
    where
        Self: Sized,
    {
        placed(self, act)
    }
    /// [`judged`], likewise.
    #[inline(always)]
    fn judged(&self, inward: u32) -> u32
    where
        Self: Sized,
    {
        judged(self, inward)
    }
}

/// Whose policies a packet is asked about: who sends it, who gets it. Bits of an
/// endpoint's flags, and those moved: no branch is taken to make them.
pub(crate) const SENDER: u32 = TRACKED as u32;
pub(crate) const RECEIVER: u32 = SENDER << 8;
/// Who sends it has had packets led to backends.
pub(crate) const TRANSLATED_SENDER: u32 = TRANSLATED as u32;
/// Some of its packets to pods go by other ports.
pub(crate) const RENUMBERED_SENDER: u32 = RENUMBERED as u32;
/// A pod of this node sent it, by its own address.
pub(crate) const BY_POD: u32 = 1 << 16;
/// It goes to the host's stack, and may be for the node itself: that is never
/// denied.
pub(crate) const TO_STACK: u32 = 1 << 17;
/// It is translated by the flow of [`Tables::work`].
const LED: u32 = 1 << 18;

/// A reason that is none: it may go on.
const ALLOWED: u32 = u32::MAX;
/// Nor is this: the rules are to be asked.
const ASK: u32 = u32::MAX - 1;
/// Nor this: it is not ours to say. See [`POLICY_RETIRED`].
const LEAVE: u32 = u32::MAX - 2;
/// Nor this: it may go on, and is ours alone to say.
const OURS: u32 = u32::MAX - 3;
/// Nor this: it goes on in its connection, whose row notes it.
const GOES_ON: u32 = u32::MAX - 4;

/// What policies say of a packet.
pub(crate) enum Says {
    Yes,
    /// And who comes after us is not asked: the connection may be known here alone.
    Ours,
    /// Who comes after us is asked.
    Leave,
    No(DropReason),
}

impl Says {
    #[inline(always)]
    const fn from(answer: u32) -> Self {
        match answer {
            ALLOWED => Self::Yes,
            OURS => Self::Ours,
            LEAVE => Self::Leave,
            reason => Self::No(DropReason::from_index(reason)),
        }
    }
}

/// What is to be asked about a packet that a pod of this node sends.
#[inline(always)]
pub(crate) const fn sent_by(sender: &Endpoint) -> u32 {
    sender.flags() & (SENDER | TRANSLATED_SENDER | RENUMBERED_SENDER) | BY_POD
}

/// What is to be asked about one that a pod of this node gets.
#[inline(always)]
pub(crate) fn got_by(receiver: Option<&Endpoint>) -> u32 {
    receiver.map_or(0, |receiver| (receiver.flags() & SENDER) << 8)
}

/// Whether a packet may not go on, as it came and before the flow of
/// [`Tables::work`] translates it, if it is `led` by one.
#[inline(always)]
pub(crate) fn denied<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    led: bool,
    sides: u32,
) -> Says
where
    Frame<H>: Header,
{
    let sides = if led { sides | LED } else { sides };
    Says::from(packet.asked(tables, !H::HAS_CHECKSUM, sides, 0))
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
) -> Says
where
    Frame<H>: Header,
{
    let marks = if own { NODE } else { 0 };
    Says::from(packet.asked(tables, !H::HAS_CHECKSUM, RECEIVER, marks))
}

/// What the pods at a packet's ends say of it, those of `sides`: the number of a
/// reason, or one that is none. `more`: zero, or that it is the node's own.
#[inline(always)]
pub fn asked_v4<P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32, more: u32) -> u32 {
    asked::<Ipv4, P>(packet, tables, sides, more)
}

/// As [`asked_v4`].
#[inline(always)]
pub fn asked_v6<P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32, more: u32) -> u32 {
    asked::<Ipv6, P>(packet, tables, sides, more)
}

#[inline(always)]
fn asked<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, sides: u32, more: u32) -> u32
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
    if sides & LED != 0
        && marks & ERROR == 0
        && let Some(work) = tables.work()
    {
        work.flow
            .destination
            .copy_to(&mut policing.ends.destination);
        policing.ends.destination_port = work.flow.destination_port;
    }
    policing.now = tables.now();
    // Before anything that the rules say: what is said later is of these or of
    // newer ones.
    let state = tables.policy_state();
    policing.generation = state.generation;
    policing.besides = state.flags & (POLICY_RETIRED | POLICY_ALONE);
    let answer = tables.policed(marks, sides);
    let to_itself = sides & TO_STACK != 0 && tables.is_own(&policing.ends.destination);
    if answer != ALLOWED && to_itself {
        return ALLOWED;
    }
    // What goes to the node itself may be an answer that who comes after leads on.
    if answer == ALLOWED && policing.besides != 0 && !to_itself {
        return OURS;
    }
    if answer == DropReason::Policy as u32 || answer == DropReason::NoConnection as u32 {
        tables.count_denied(&policing.denial, policing.now);
    }
    answer
}

/// What the pods at the ends say of the packet that is described in
/// [`Connections::policing`], those of `sides`: the number of a reason, or one that
/// is none.
///
/// In three functions, one after the other and not one in the other, so that the
/// verifier walks each of them few times.
#[inline(always)]
pub fn policed(tables: &impl Tables, marks: u32, sides: u32) -> u32 {
    let Some(policing) = tables.policing() else {
        return DropReason::Policy as u32;
    };
    if marks & LATER_PART != 0 {
        return by_first_part(tables, policing, marks, sides);
    }
    let answer = by_connection(tables, policing, marks, sides);
    let mut answer = policing.blur(answer);
    if answer == ASK {
        by_rules(tables, policing);
        answer = concluded(tables, policing, marks, sides);
        answer = policing.blur(answer);
    }
    if answer == GOES_ON {
        // From here and not from where it is said: programs' stacks are small.
        if marks & ERROR == 0 {
            tables.noted(marks, sides);
        }
        answer = ALLOWED;
    }
    if answer == ALLOWED && marks & FIRST_PART != 0 {
        describe_part(tables, policing);
        if sides & SENDER != 0 {
            tables.note_part(parts::BY_SENDER);
        }
        if sides & RECEIVER != 0 {
            tables.note_part(parts::BY_RECEIVER);
        }
    }
    answer
}

/// What is said of a part without ports: it follows the first one.
#[inline(always)]
fn by_first_part(tables: &impl Tables, policing: &Policing, marks: u32, sides: u32) -> u32 {
    describe_part(tables, policing);
    let mut found = true;
    if sides & SENDER != 0 {
        found = tables.first_part(parts::BY_SENDER) & parts::FOUND != 0;
    }
    if found && sides & RECEIVER != 0 {
        found = tables.first_part(parts::BY_RECEIVER) & parts::FOUND != 0;
    }
    if found || marks & NODE != 0 {
        ALLOWED
    } else {
        DropReason::Fragment as u32
    }
}

/// Puts the packet that this one is a part of into its place.
#[inline(always)]
fn describe_part(tables: &impl Tables, policing: &Policing) {
    if let Some(work) = tables.work() {
        let (ends, part) = (&policing.ends, &mut work.part);
        part.source = ends.source;
        part.destination = ends.destination;
        part.protocol = ends.protocol;
        part.id = policing.id;
    }
}

/// By what its connection is known to be, or [`ASK`], with those who are to be
/// asked in their place.
#[inline(never)]
fn by_connection<T: Tables>(tables: &T, policing: &mut Policing, marks: u32, sides: u32) -> u32 {
    let ends = &policing.ends;
    let (from, to) = (
        (&ends.source, ends.source_port),
        (&ends.destination, ends.destination_port),
    );
    policing.out = first(from, to, sides);
    policing.key.set(&policing.ends, policing.out);
    policing.either_way = 0;
    policing.is_error = 0;
    policing.is_new = u32::from(marks & BEGINS != 0);
    let mut row = known(tables, policing, marks);
    if row.is_none() && marks & BEGINS == 0 {
        // As the other end's, which policies are no longer about, or were first.
        policing.out ^= OUT;
        policing.key.set(&policing.ends, policing.out);
        row = known(tables, policing, marks);
        if row.is_none() {
            policing.out ^= OUT;
            policing.key.set(&policing.ends, policing.out);
        }
    }
    policing.is_known = row.is_some().into();
    let Some(row) = row else {
        if marks & NODE != 0 {
            return ALLOWED;
        }
        if policing.besides & POLICY_RETIRED != 0 {
            return LEAVE;
        }
        // By who sends, as far as is known.
        policing.opened = 1;
        policing.ask = sides & (SENDER | RECEIVER);
        if marks & ERROR != 0 {
            // Of no connection that is known, it is what it is.
            policing.is_error = 1;
        } else if policing.ends.protocol == u32::from(IPPROTO_TCP) && marks & (BEGINS | RESETS) == 0
        {
            policing.either_way = 1;
        }
        return ASK;
    };
    policing.opened = (row.is_inward() == (policing.out == 0)).into();
    let (pod, other) = ends_of_row(policing.out);
    let mut ask = 0;
    if sides & pod != 0 {
        match row.outcome(policing.generation) {
            None => ask = pod,
            Some(outcome) if !outcome.is_allowed() && marks & NODE == 0 => {
                question(policing, pod);
                policing.denial.by = outcome.by();
                return DropReason::Policy as u32;
            }
            Some(_) => {}
        }
    }
    if sides & other != 0 && !row.is_allowed_by_other(policing.generation) {
        ask |= other;
    }
    if ask != 0 {
        policing.ask = ask;
        return ASK;
    }
    GOES_ON
}

/// The row of the connection, unless the packet begins another one.
#[inline(always)]
fn known<'t, T: Tables>(
    tables: &'t T,
    policing: &mut Policing,
    marks: u32,
) -> Option<&'t mut Connection> {
    let row = place::known(tables, policing)?;
    policing.is_new = 0;
    if row.is_over(policing.key.protocol, policing.now) {
        return None;
    }
    let opened_there = row.is_inward() != (policing.out == 0);
    if marks & BEGINS != 0 && opened_there {
        return None;
    }
    Some(row)
}

/// Notes a packet that goes on in the row of its connection, which is that in
/// [`Connections::policing`].
#[inline(always)]
pub fn noted<T: Tables>(tables: &T, marks: u32, sides: u32) -> u32 {
    let Some(policing) = tables.policing() else {
        return 0;
    };
    // Another CPU may have ended it just now.
    let Some(row) = place::find(tables, &policing.key) else {
        return 0;
    };
    match row.next(marks | policing.out) {
        Next::Ends if tables.policy_state().flags & POLICY_OBSERVES != 0 => {
            row.end(policing.now);
        }
        Next::Ends => {
            // From when one of them was not asked, or from another version.
            let two = sides & (SENDER | RECEIVER) == SENDER | RECEIVER && !row.is_of_both();
            let (mut row, mut more) = (row, policing.blur(two.into()));
            loop {
                place::forget(tables, &policing.key, row);
                if more == 0 {
                    break;
                }
                more = 0;
                policing.key.set(&policing.ends, policing.out ^ OUT);
                match place::find(tables, &policing.key) {
                    Some(other) => row = other,
                    None => break,
                }
            }
        }
        Next::Stays { flags } => row.touch(flags, policing.now),
    }
    0
}

/// Puts what the rules are asked into its place: of the pod at one end.
#[inline(always)]
fn question(policing: &mut Policing, side: u32) {
    let (ends, denial) = (&policing.ends, &mut policing.denial);
    let opened = policing.opened != 0;
    let mut other = &ends.source;
    if side == SENDER {
        denial.pod = ends.source;
        denial.ingress = (!opened).into();
        other = &ends.destination;
    } else {
        denial.pod = ends.destination;
        denial.ingress = opened.into();
        if policing.is_error != 0 {
            other = &policing.source;
        }
    }
    denial.other = *other;
    denial.protocol = ends.protocol as u8;
    denial.port = if opened {
        ends.destination_port
    } else {
        ends.source_port
    };
    if policing.is_error != 0 {
        denial.protocol = policing.icmp as u8;
        denial.port = Port::default();
    }
    denial.reserved = 0;
}

/// Asks the rules. What is in the middle of a TCP connection that is from before
/// policies were about the pod may be of one in either direction: who opened it
/// is not known, and the one way is asked about and then the other.
#[inline(never)]
fn by_rules<T: Tables>(tables: &T, policing: &mut Policing) {
    let mut way = 0;
    while way < 2 {
        way += 1;
        policing.denied = 0;
        let ask = policing.ask;
        if ask & SENDER != 0 && !allows(tables, policing, SENDER) {
            policing.denied = SENDER;
        } else if ask & RECEIVER != 0 && !allows(tables, policing, RECEIVER) {
            policing.denied = RECEIVER;
        }
        if policing.denied == 0 || policing.either_way == 0 {
            return;
        }
        let row = tables.pod(&policing.denial.pod);
        if !row.is_some_and(|row| row.is_new(policing.now)) {
            return;
        }
        policing.opened ^= 1;
    }
}

#[inline(always)]
fn allows<T: Tables>(tables: &T, policing: &mut Policing, side: u32) -> bool {
    question(policing, side);
    let allowed = tables.judged(policing.denial.ingress.into()) != 0;
    if side == ends_of_row(policing.out).0 {
        policing.of_pod = policing.outcome;
    }
    allowed
}

/// What the rules say of the question in [`Connections::policing`], in its place; not
/// zero if they allow it.
#[inline(always)]
pub fn judged<T: Connections>(tables: &T, inward: u32) -> u32 {
    let Some(policing) = tables.policing() else {
        return 0;
    };
    // Where it is: a program's stack has no room for another one.
    let Some(Policing { denial: asked, .. }) = tables.policing() else {
        return 0;
    };
    let before = tables.judgement(asked.slot());
    if let Some(before) = &before
        && before.is_about(asked, policing.generation)
    {
        policing.outcome = before.outcome;
        return policing.outcome.is_allowed().into();
    }
    let blur = |word| policing.blur(word);
    let about = (asked.protocol, asked.port);
    policing.outcome = judge_side(tables, (&asked.pod, inward), &asked.other, about, blur);
    if let Some(before) = before {
        before.set(asked, policing.generation, policing.outcome);
    }
    policing.outcome.is_allowed().into()
}

/// After the rules were asked.
#[inline(never)]
fn concluded<T: Tables>(tables: &T, policing: &mut Policing, marks: u32, sides: u32) -> u32 {
    let (pod, other) = ends_of_row(policing.out);
    let denied = policing.denied;
    if policing.is_known != 0
        && let Some(row) = known(tables, policing, marks)
    {
        // Who sends is asked first: who gets it may not have been.
        if policing.ask & pod != 0 && (pod == SENDER || denied != SENDER) {
            row.set_outcome(policing.of_pod, policing.generation);
        }
        if policing.ask & other != 0 && denied == 0 {
            row.set_allowed_by_other(policing.generation);
        }
        if denied != 0 && marks & NODE == 0 {
            policing.denial.by = policing.outcome.by();
            return DropReason::Policy as u32;
        }
        return GOES_ON;
    }
    if denied != 0 {
        policing.denial.by = policing.outcome.by();
        if policing.denial.protocol == IPPROTO_TCP && marks & BEGINS == 0 {
            // In the middle of what is not known: no rule is about it.
            policing.opened = 1;
            question(policing, denied);
            policing.denial.by = BY_NO_CONNECTION;
            return DropReason::NoConnection as u32;
        }
        return DropReason::Policy as u32;
    }
    if marks & (ERROR | ENDS | RESETS) != 0 {
        // Nothing more is to come.
        return ALLOWED;
    }
    let is_inward = (policing.out == 0) == (policing.opened != 0);
    policing.row = Connection::new(is_inward, policing.now);
    policing
        .row
        .set_outcome(policing.of_pod, policing.generation);
    if sides & (SENDER | RECEIVER) == SENDER | RECEIVER {
        policing.row.set_of_both(policing.generation);
    }
    if !place::remember(tables, policing) && !pass_alone(tables, policing, marks, sides) {
        return DropReason::ConnectionsFull as u32;
    }
    ALLOWED
}

/// Whether a packet that the rules allow may pass though its connection cannot be
/// remembered: if nothing restricts the other direction of the pods, answers pass
/// without that. And it may itself be an answer to such a packet, which is seen of
/// TCP alone; if it is none, its answers are denied.
#[inline(always)]
fn pass_alone(tables: &impl PolicyTables, policing: &Policing, marks: u32, sides: u32) -> bool {
    if policing.ends.protocol != u32::from(IPPROTO_TCP) || marks & BEGINS == 0 {
        return true;
    }
    // It begins one: who sends opens it.
    let is_open = |pod: &Address, side| {
        let row = tables.pod(pod);
        row.is_some_and(|row| row.side(side) == NO_POLICY)
    };
    (sides & SENDER == 0 || is_open(&policing.ends.source, PolicyPod::INGRESS))
        && (sides & RECEIVER == 0 || is_open(&policing.ends.destination, PolicyPod::EGRESS))
}

#[cfg(test)]
mod tests;
