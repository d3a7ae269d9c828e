//! What is remembered of the connections of pods that policies are about.
//!
//! A row is how one pod sees a connection: it is a question to the policies, and
//! keeps the answer for as long as the rules are the same. Where both ends are such
//! pods of this node the row is that of one of them, and has for the other end since
//! when it allows the connection.

pub(super) mod place;

pub use place::{Place, placed};

use crate::layout::layout;
use crate::policy::{Outcome, RECEIVER, SENDER};
use crate::table::{FlowKey, table_rows};
use crate::wire::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::{Address, Port};

/// The ends of a connection as they are in truth: who sends by its own address,
/// who gets it by that after translation. An ICMP echo has its identifier as the
/// port of who asks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// Of this node.
    pub pod: Address,
    pub other: Address,
    pub pod_port: Port,
    pub other_port: Port,
    pub protocol: u32,
}

/// In words that are each of use alone: all CPUs write to them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    #[cfg(not(feature = "next-layout"))]
    outcome: Outcome,
    /// Of the rules that the outcome is from.
    generation: u32,
    /// When the last packet came, seconds since boot.
    last: u32,
    flags: u32,
    /// Generation of the rules by which the other end's pod allows it, too.
    other_allows: u32,
    #[cfg(feature = "next-layout")]
    outcome: Outcome,
}

/// The other end opened it; else the pod did.
const INWARD: u32 = 1;
/// Who was asked has sent something.
const REPLIED: u32 = 2;
/// The pod's end has said that it sends no more; the other one has.
const FIN_POD: u32 = 4;
const FIN_OTHER: u32 = 8;
/// Somebody who may be anybody says that it is over.
const RESET: u32 = 16;
/// Its last packet has been seen; the row stays to be read.
const OVER: u32 = 32;
/// It is the other end's row, too.
const OF_BOTH: u32 = 64;
/// Seconds for which it does: who reads looks more often.
const SEEN: u32 = 12;

/// What a packet says of its connection.
pub(crate) mod marks {
    /// It is a connection's first, whatever went before.
    pub(crate) const BEGINS: u32 = 1;
    /// Its side has ended.
    pub(crate) const ENDS: u32 = 2;
    /// Both have.
    pub(crate) const RESETS: u32 = 4;
    /// It is an ICMP error, and the ends are those of what it is about.
    pub(crate) const ERROR: u32 = 8;
    /// A part of a packet: its beginning; the rest.
    pub(crate) const FIRST_PART: u32 = 16;
    pub(crate) const LATER_PART: u32 = 32;
    /// The pod sent it; else it got it.
    pub(crate) const OUT: u32 = 64;
    /// It was sent by a pod of this node, which writes its own address.
    pub(crate) const LOCAL: u32 = 128;
    /// Of the node's own: it passes, whatever the rules say.
    pub(crate) const NODE: u32 = 256;
}

use marks::{BEGINS, ENDS, LOCAL, OUT, RESETS};

/// What becomes of a connection's row with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stays { flags: u32 },
    Ends,
}

impl ConnectionKey {
    #[inline(always)]
    pub(super) const fn new(pod: (Address, Port), other: (Address, Port), protocol: u8) -> Self {
        Self {
            pod: pod.0,
            other: other.0,
            pod_port: pod.1,
            other_port: other.1,
            protocol: protocol as u32,
        }
    }

    /// As the pod that sent a packet (`OUT`), or got it, sees the packet.
    #[inline(always)]
    pub(super) fn set(&mut self, ends: &FlowKey, marks: u32) {
        if marks & OUT != 0 {
            self.pod = ends.source;
            self.other = ends.destination;
            self.pod_port = ends.source_port;
            self.other_port = ends.destination_port;
        } else {
            self.pod = ends.destination;
            self.other = ends.source;
            self.pod_port = ends.destination_port;
            self.other_port = ends.source_port;
        }
        self.protocol = ends.protocol;
    }
}

/// Whether the row of a connection between two pods that are both asked is that of
/// the first one. Any order will do that is the same both ways.
#[inline(always)]
pub fn is_first(one: (&Address, Port), other: (&Address, Port)) -> bool {
    let (a, b) = (one.0.words(), other.0.words());
    // The last word is where they differ most often.
    let mut at = 4;
    while at > 0 {
        at -= 1;
        if a[at] != b[at] {
            return a[at] < b[at];
        }
    }
    one.1.network() <= other.1.network()
}

/// Whose row it is that a packet is looked up in, `OUT` if who sends it: of two who
/// are asked it is the first one's, so that both ways of a connection find it with
/// one look.
#[inline(always)]
pub(super) fn first(from: (&Address, Port), to: (&Address, Port), sides: u32) -> u32 {
    let of_sender = if sides & (SENDER | RECEIVER) == SENDER | RECEIVER {
        is_first(from, to)
    } else {
        sides & SENDER != 0
    };
    if of_sender { OUT } else { 0 }
}

/// Which side the row's pod is, and which the other end.
#[inline(always)]
pub(super) const fn ends_of_row(out: u32) -> (u32, u32) {
    if out != 0 {
        (SENDER, RECEIVER)
    } else {
        (RECEIVER, SENDER)
    }
}

impl Connection {
    /// `inward`: the other end opened it.
    #[inline(always)]
    pub const fn new(inward: bool, now: u32) -> Self {
        Self {
            outcome: Outcome::deny(super::BY_DAMAGE),
            generation: 0,
            last: now,
            flags: if inward { INWARD } else { 0 },
            other_allows: 0,
        }
    }

    /// One that both ends are in the middle of; its outcome is not known.
    #[must_use]
    pub const fn established(inward: bool, now: u32) -> Self {
        let new = Self::new(inward, now);
        Self {
            flags: new.flags | REPLIED,
            ..new
        }
    }

    /// It is the other end's row, too; whether that allows it is not known.
    #[must_use]
    pub const fn of_both(self) -> Self {
        let flags = self.flags | OF_BOTH;
        Self { flags, ..self }
    }

    /// It is the other end's row, too, which allows it by the rules of a generation.
    #[inline(always)]
    pub(super) fn set_of_both(&mut self, generation: u32) {
        self.flags |= OF_BOTH;
        self.other_allows = generation;
    }

    #[inline(always)]
    pub(super) const fn is_of_both(&self) -> bool {
        self.flags & OF_BOTH != 0
    }

    /// Whether the other end allows it by the rules of this generation.
    #[inline(always)]
    pub(super) fn is_allowed_by_other(&self, generation: u32) -> bool {
        // SAFETY: a word of a row.
        let of = unsafe { core::ptr::read_volatile(&raw const self.other_allows) };
        // No rules are of generation zero.
        of == generation && of != 0
    }

    #[inline(always)]
    pub(super) fn set_allowed_by_other(&mut self, generation: u32) {
        // SAFETY: a word of a row.
        unsafe { core::ptr::write_volatile(&raw mut self.other_allows, generation) };
    }

    /// The other end opened it; else the pod did.
    #[inline(always)]
    pub const fn is_inward(&self) -> bool {
        self.flags & INWARD != 0
    }

    /// Both ends have sent something, and neither has ended.
    pub const fn is_established(&self) -> bool {
        self.flags & (REPLIED | FIN_POD | FIN_OTHER | RESET) == REPLIED
    }

    /// Who was asked has sent something.
    pub const fn is_answered(&self) -> bool {
        self.flags & REPLIED != 0
    }

    /// Seconds since its last packet. Clocks of CPUs may differ by a tick.
    pub const fn idle(&self, now: u32) -> u32 {
        now.saturating_sub(self.last)
    }

    /// Its last packet has been seen.
    #[inline(always)]
    pub const fn has_ended(&self) -> bool {
        self.flags & OVER != 0
    }

    /// The last packet was seen, while somebody reads what connections there are.
    #[inline(always)]
    pub(super) fn end(&mut self, now: u32) {
        self.touch(self.flags | OVER, now);
    }

    /// What the rules of a generation said; `None` if those are other ones.
    #[inline(always)]
    pub(super) fn outcome(&self, generation: u32) -> Option<Outcome> {
        // In this order: the outcome is written before the generation.
        // SAFETY: words of a row.
        let (of, outcome) = unsafe {
            (
                core::ptr::read_volatile(&raw const self.generation),
                core::ptr::read_volatile(&raw const self.outcome),
            )
        };
        (of == generation).then_some(outcome)
    }

    #[inline(always)]
    pub(super) fn set_outcome(&mut self, outcome: Outcome, generation: u32) {
        // SAFETY: words of a row.
        unsafe {
            core::ptr::write_volatile(&raw mut self.outcome, outcome);
            core::ptr::write_volatile(&raw mut self.generation, generation);
        }
    }

    /// Whether so much time has gone by without a packet that the next one
    /// begins a connection of its own. `protocol` is its key's.
    #[inline(always)]
    pub const fn is_over(&self, protocol: u32, now: u32) -> bool {
        // Clocks of CPUs may differ by a tick.
        let idle = now.wrapping_sub(self.last) as i32;
        idle > self.patience(protocol) as i32
    }

    /// Seconds without a packet after which it is over. As connection tracking
    /// of the kernel has them (nf_conntrack-sysctl), with fewer states.
    #[inline(always)]
    const fn patience(&self, protocol: u32) -> u32 {
        const DAY: u32 = 24 * 60 * 60;
        let replied = self.flags & REPLIED != 0;
        const TCP: u32 = IPPROTO_TCP as u32;
        const UDP: u32 = IPPROTO_UDP as u32;
        const ICMP: u32 = IPPROTO_ICMP as u32;
        const ICMPV6: u32 = IPPROTO_ICMPV6 as u32;
        match protocol {
            TCP if self.has_ended() => SEEN,
            TCP if self.flags & (FIN_POD | FIN_OTHER | RESET) != 0 => 120,
            TCP if replied => 5 * DAY,
            TCP => 60,
            UDP if replied => 120,
            UDP | ICMP | ICMPV6 => 30,
            _ => 600,
        }
    }

    /// What a packet with these marks makes of it.
    #[inline(always)]
    pub(super) fn next(&self, marks: u32) -> Next {
        let mut flags = self.flags;
        let out = marks & OUT != 0;
        if out == self.is_inward() {
            flags |= REPLIED;
        }
        if marks & BEGINS != 0 {
            // Who opened it does so again.
            flags &= INWARD | OF_BOTH;
        }
        if marks & RESETS != 0 {
            // Only who is here is known to be who it says.
            if marks & LOCAL != 0 {
                return Next::Ends;
            }
            flags |= RESET;
        } else if marks & ENDS != 0 {
            flags |= if out { FIN_POD } else { FIN_OTHER };
        } else if flags & (FIN_POD | FIN_OTHER) == FIN_POD | FIN_OTHER || flags & OVER != 0 {
            // This acknowledges the second end.
            return Next::Ends;
        } else if out {
            // Who goes on was not reset.
            flags &= !RESET;
        }
        Next::Stays { flags }
    }

    /// Whether nothing but what a packet says of it decides about that: one was met
    /// this second, and nobody says that it is over.
    #[inline(always)]
    pub(super) const fn goes_on(&self, now: u32) -> bool {
        self.last == now && self.flags & (RESET | OVER) == 0
    }

    /// Another connection of the same ends: who reads it meanwhile asks the rules.
    #[inline(always)]
    fn replace(&mut self, row: &Self) {
        self.set_outcome(self.outcome, 0);
        self.set_allowed_by_other(row.other_allows);
        self.flags = row.flags;
        self.last = row.last;
        self.set_outcome(row.outcome, row.generation);
    }

    /// Notes a packet; writes only what changes, as other CPUs read it.
    #[inline(always)]
    pub(super) fn touch(&mut self, flags: u32, now: u32) {
        if self.last != now {
            self.last = now;
        }
        if self.flags != flags {
            self.flags = flags;
        }
    }
}

table_rows! {
    ConnectionKey: 40,
    Connection: 24,
}

layout! {
    ConnectionKey { pod, other, pod_port, other_port, protocol }
    Connection { outcome, generation, last, flags, other_allows }
}
