//! What is asked about a packet, what rules said of the same before, and how it is
//! counted.

use crate::layout::layout;
use crate::policy::Outcome;
use crate::policy::connection::{Connection, ConnectionKey};
use crate::table::{FlowKey, table_rows};
use crate::{Address, Port};

/// What all decisions about policies have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// Another one with every change of the rules.
    pub generation: u32,
    /// [`POLICY_REJECTS`], [`POLICY_OBSERVES`].
    pub flags: u32,
    /// How many rows of connections each [`ShareKey`] may have; zero if that is not
    /// limited.
    pub share: u32,
}

/// Who is denied gets an answer.
pub const POLICY_REJECTS: u32 = 1;
/// Rows of connections that have ended stay for a while.
pub const POLICY_OBSERVES: u32 = 2;
/// Connections that are not known are left to whoever comes after: another
/// engine, or another version of these programs. The same bit in all versions.
pub const POLICY_RETIRED: u32 = 4;
/// What is allowed here is nobody else's to say: whoever comes after does not know
/// all connections yet. Likewise.
pub const POLICY_ALONE: u32 = 8;

/// Packets that policies stopped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DenialKey {
    pub pod: Address,
    pub other: Address,
    /// [`Outcome::by`], or [`crate::BY_NO_CONNECTION`].
    pub by: u64,
    /// Of the connection's destination.
    pub port: Port,
    pub protocol: u8,
    /// 1: to the pod; 0: from it.
    pub ingress: u8,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenialRow {
    pub packets: u64,
    /// Seconds since boot.
    pub last: u32,
    pub reserved: u32,
}

impl DenialKey {
    /// Where the answer to such a question is remembered: below
    /// [`Judgement::SLOTS`].
    #[inline(always)]
    pub(super) const fn slot(&self) -> u32 {
        let (pod, other) = (self.pod.words()[3], self.other.words()[3]);
        let port = (self.port.network() as u32) << 7 | self.ingress as u32;
        let mixed = pod ^ other.rotate_left(9) ^ port;
        // Of all bits, in the high ones (Knuth, 6.4).
        mixed.wrapping_mul(0x9e37_79b1) >> (32 - Judgement::SLOTS.trailing_zeros())
    }
}

/// What the rules said of a question: whether a pod and another address may speak
/// that way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    pod: Address,
    other: Address,
    pub(super) outcome: Outcome,
    /// Of the rules.
    generation: u32,
    port: Port,
    protocol: u8,
    ingress: u8,
}

impl Default for Judgement {
    /// Of no rules.
    fn default() -> Self {
        Self {
            pod: Address::default(),
            other: Address::default(),
            outcome: Outcome::deny(super::BY_DAMAGE),
            generation: 0,
            port: Port::default(),
            protocol: 0,
            ingress: 0,
        }
    }
}

impl Judgement {
    /// How many are remembered: who asks often asks the same.
    pub const SLOTS: u32 = 256;

    #[inline(always)]
    pub(super) fn is_about(&self, asked: &DenialKey, generation: u32) -> bool {
        self.generation == generation
            && generation != 0
            && self.pod == asked.pod
            && self.other == asked.other
            && self.port == asked.port
            && self.protocol == asked.protocol
            && self.ingress == asked.ingress
    }

    #[inline(always)]
    pub(super) fn set(&mut self, asked: &DenialKey, generation: u32, outcome: Outcome) {
        self.pod = asked.pod;
        self.other = asked.other;
        self.outcome = outcome;
        self.generation = generation;
        self.port = asked.port;
        self.protocol = asked.protocol;
        self.ingress = asked.ingress;
    }
}

/// Whose connections are counted together: those that a pod began, and those that
/// others began with it, who are not asked themselves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareKey {
    pub pod: Address,
    /// 1: others began them.
    pub inward: u32,
}

impl ShareKey {
    #[inline(always)]
    pub fn new(key: &ConnectionKey, row: &Connection) -> Self {
        let inward = row.is_inward();
        if row.is_of_both() {
            let pod = if inward { key.other } else { key.pod };
            return Self { pod, inward: 0 };
        }
        Self {
            pod: key.pod,
            inward: inward.into(),
        }
    }
}

/// Room for what a packet is asked about: a program's own stack is too small.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Policing {
    pub(super) ends: FlowKey,
    pub(super) key: ConnectionKey,
    pub(super) row: Connection,
    pub(super) denial: DenialKey,
    /// Of the packet that this one is a part of.
    pub(super) id: u32,
    /// See [`Policing::blur`].
    blurred: u32,
    pub(super) outcome: Outcome,
    /// What the pod of the row says.
    pub(super) of_pod: Outcome,
    /// One if the packet's source opened the connection.
    pub(super) opened: u32,
    /// The mark if it is the source's row.
    pub(super) out: u32,
    /// Sides whose rules are to be asked.
    pub(super) ask: u32,
    /// The side that denies it.
    pub(super) denied: u32,
    /// One if the connection has a row.
    pub(super) is_known: u32,
    /// One if it is asked about as an ICMP error, not as what that is about.
    pub(super) is_error: u32,
    /// One if it begins a connection and none of its ends has a row.
    pub(super) is_new: u32,
    /// The family's ICMP.
    pub(super) icmp: u32,
    /// Seconds since boot.
    pub(super) now: u32,
    /// Of the rules.
    pub(super) generation: u32,
    /// One if it may be of a connection that was opened from either end.
    pub(super) either_way: u32,
    /// [`POLICY_RETIRED`], [`POLICY_ALONE`].
    pub(super) besides: u32,
    /// Whom the packet is from, whatever it is about.
    pub(super) source: Address,
}

impl Policing {
    /// The same word, of which the verifier no longer knows what it is: else it
    /// walks all that follows once for each value that a word can have.
    #[inline(always)]
    pub(super) fn blur(&mut self, word: u32) -> u32 {
        // SAFETY: a word that is there.
        unsafe {
            core::ptr::write_volatile(&raw mut self.blurred, word);
            core::ptr::read_volatile(&raw const self.blurred)
        }
    }
}

impl Default for Policing {
    fn default() -> Self {
        Self {
            ends: FlowKey::default(),
            key: ConnectionKey::default(),
            row: Connection::new(false, 0),
            denial: DenialKey::default(),
            id: 0,
            blurred: 0,
            outcome: Outcome::deny(super::BY_DAMAGE),
            of_pod: Outcome::deny(super::BY_DAMAGE),
            opened: 0,
            out: 0,
            ask: 0,
            denied: 0,
            is_known: 0,
            is_error: 0,
            is_new: 0,
            icmp: 0,
            now: 0,
            generation: 0,
            either_way: 0,
            besides: 0,
            source: Address::default(),
        }
    }
}

table_rows! {
    PolicyState: 12,
    Judgement: 48,
    DenialKey: 48,
    DenialRow: 16,
    ShareKey: 20,
    Policing: 240,
}

layout! {
    PolicyState { generation, flags, share }
    DenialKey { pod, other, by, port, protocol, ingress, reserved }
    DenialRow { packets, last, reserved }
    ShareKey { pod, inward }
}
