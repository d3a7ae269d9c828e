//! Keys and values of the policy tables: `repr(C)`, without padding.

use core::hint::black_box;

use crate::Address;
use crate::layout::layout;
use crate::table::table_rows;

/// Names of the tables, as [`crate::names`].
pub mod policy_names {
    /// [`crate::Address`] -> [`super::PolicyPod`].
    pub const PODS: &str = "policy_pods";
    /// [`super::ClassKey`] -> u64, longest prefix first.
    pub const CLASSES: &str = "policy_classes";
    /// [`super::PairKey`] -> [`super::PairRow`].
    pub const PAIRS: &str = "policy_pairs";
    /// Index -> [`super::PortNode`].
    pub const PORTS: &str = "policy_ports";
    /// One [`crate::PolicyState`].
    pub const STATE: &str = "policy_state";
    /// [`crate::Address`] of this node -> one.
    pub const OWN: &str = "own_addresses";
    /// [`crate::ConnectionKey`] -> [`crate::Connection`].
    pub const CONNECTIONS: &str = "connections";
    /// Index -> [`crate::Place`].
    pub const PLACES: &str = "places";
    /// [`crate::ShareKey`] -> rows among the connections.
    pub const SHARES: &str = "shares";
    /// [`crate::DenialKey`] -> [`crate::DenialRow`].
    pub const DENIALS: &str = "denials";
    /// Packets that were stopped and found no room among the denials -> u64 per
    /// CPU.
    pub const DENIALS_LOST: &str = "denials_lost";
    /// Per CPU, [`crate::Judgement::SLOTS`] of [`crate::Judgement`].
    pub const JUDGEMENTS: &str = "judgements";
    /// One [`crate::Policing`] per CPU.
    pub const POLICING: &str = "policing";
}

/// What is in force on a pod of this node, by side: [`crate::NO_POLICY`], or an
/// id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq)]
pub struct PolicyPod {
    sides: [u64; 2],
    /// When policies came to be about it while it was there already, seconds since
    /// boot; 0 if they always were. No part of what the row says.
    since: u32,
    reserved: u32,
}

impl PartialEq for PolicyPod {
    fn eq(&self, other: &Self) -> bool {
        self.sides == other.sides
    }
}

/// For how many seconds connections may turn up that nobody remembered, because
/// they are from before policies were about their pod.
const MEMORY: u32 = 600;

impl PolicyPod {
    pub const EGRESS: u32 = 0;
    pub const INGRESS: u32 = 1;

    pub const fn new(ingress: u64, egress: u64) -> Self {
        Self {
            sides: [egress, ingress],
            since: 0,
            reserved: 0,
        }
    }

    #[must_use]
    pub const fn since(self, now: u32) -> Self {
        Self { since: now, ..self }
    }

    /// As another row of the same pod, as far as this is no part of what it says.
    #[must_use]
    pub const fn as_long_as(self, other: &Self) -> Self {
        self.since(other.since)
    }

    /// There may be connections that nobody remembered.
    #[inline(always)]
    pub(super) const fn is_new(&self, now: u32) -> bool {
        self.since != 0 && now.wrapping_sub(self.since) < MEMORY
    }

    #[inline(always)]
    pub const fn side(&self, side: u32) -> u64 {
        self.sides[side as usize & 1]
    }
}

/// Prefix of addresses of one class; the length counts the 96 bits before an
/// IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassKey {
    pub prefix_len: u32,
    pub address: Address,
}

impl ClassKey {
    /// All IPv4 addresses. Has to be in the table, with [`crate::CLASS_V4`]:
    /// short IPv6 prefixes have the mapped addresses inside.
    pub const ALL_V4: Self = Self {
        prefix_len: 96,
        address: Address::v4(0),
    };
}

/// A side and a class.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    pub policy: u64,
    pub class: u64,
}

/// What a side says of a class: of TCP, UDP, SCTP and everything else, which never
/// depends on ports.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairRow {
    pub cells: [Outcome; 4],
}

impl PairRow {
    #[inline(always)]
    pub(super) const fn cell(&self, index: u32) -> Outcome {
        self.cells[index as usize & 3]
    }
}

/// Yes or no and who said so, or where to look with the port.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome(u64);

const DENIED: u64 = 1 << 62;
const NODE: u64 = 1 << 63;

impl Outcome {
    /// `by` has at most 62 bits.
    #[inline(always)]
    pub const fn allow(by: u64) -> Self {
        Self(by & !(NODE | DENIED))
    }

    /// `by` has at most 62 bits.
    #[inline(always)]
    pub const fn deny(by: u64) -> Self {
        Self(by & !(NODE | DENIED) | DENIED)
    }

    #[inline(always)]
    pub const fn see_node(index: u32) -> Self {
        Self(NODE | index as u64)
    }

    /// Index of the [`PortNode`] that says more.
    #[inline(always)]
    pub const fn node(self) -> Option<u32> {
        if self.0 & NODE == 0 {
            None
        } else {
            Some(self.0 as u32)
        }
    }

    #[inline(always)]
    pub const fn is_allowed(self) -> bool {
        self.0 & (NODE | DENIED) == 0
    }

    /// Who said so.
    #[inline(always)]
    pub const fn by(self) -> u64 {
        self.0 & !(NODE | DENIED)
    }
}

/// Eight ranges of ports: each from its first one up to the next one's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortNode {
    next: [Outcome; Self::RANGES],
    /// In host byte order, ascending.
    first: [u16; Self::RANGES],
}

impl PortNode {
    pub const RANGES: usize = 8;

    /// The ranges of a node, one to eight, ascending; the first one's start does
    /// not matter.
    pub fn new(ranges: &[(u16, Outcome)]) -> Self {
        let last = ranges
            .last()
            .map_or(Outcome::deny(crate::BY_DAMAGE), |r| r.1);
        let mut node = Self {
            next: [last; Self::RANGES],
            first: [u16::MAX; Self::RANGES],
        };
        for ((first, next), range) in node.first.iter_mut().zip(&mut node.next).zip(ranges) {
            (*first, *next) = *range;
        }
        node
    }

    /// The ranges that it was made of.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, Outcome)> {
        // Those that are left say what the last one says, of the last port.
        let is_one =
            |at: usize| at == 0 || self.first[at] != u16::MAX || self.next[at] != self.next[at - 1];
        let ranges = (0..Self::RANGES).take_while(move |at| is_one(*at));
        ranges.map(|at| (self.first[at], self.next[at]))
    }

    #[inline(always)]
    pub(super) fn at(&self, port: u16) -> Outcome {
        // Without a branch for each range: the verifier would walk both ways of
        // all of them.
        let mut later = 0;
        let mut range = 1;
        while range < Self::RANGES {
            // One if the range begins after the port. Hidden step by step, or the
            // compiler makes a branch of it.
            let ahead = u32::from(port).wrapping_sub(u32::from(self.first[range]));
            later += black_box(black_box(ahead) >> 31) as usize;
            range += 1;
        }
        self.next[(Self::RANGES - 1 - later) & (Self::RANGES - 1)]
    }
}

table_rows! {
    PolicyPod: 24,
    ClassKey: 20,
    PairKey: 16,
    PairRow: 32,
    PortNode: 80,
}

layout! {
    PolicyPod { sides, since, reserved }
    ClassKey { prefix_len, address }
    PairKey { policy, class }
    PairRow { cells }
    PortNode { next, first }
}
