//! Network policies: may a pod and another address talk.
//!
//! Three lookups whatever the number of policies, pods and addresses: the pod's
//! row, the other address's class (longest prefix), and what the one says of the
//! other; with rules by port an array is read besides, once for each eight port
//! ranges that a binary search would leave (`PortNode`), at most six times.

mod connection;
mod enforce;
mod question;
mod read;
mod rows;
mod settled;

pub use connection::{Connection, ConnectionKey, Place, is_first, placed};
pub use enforce::{Connections, asked_v4, asked_v6, judged, noted, policed};
pub(crate) use enforce::{
    RECEIVER, RENUMBERED_SENDER, SENDER, Says, TO_STACK, TRANSLATED_SENDER, answers, denied,
    denied_to_pod, got_by, sent_by,
};
pub use question::{
    DenialKey, DenialRow, Judgement, POLICY_ALONE, POLICY_OBSERVES, POLICY_REJECTS, POLICY_RETIRED,
    Policing, PolicyState, ShareKey,
};
pub use rows::{ClassKey, Outcome, PairKey, PairRow, PolicyPod, PortNode, policy_names};
pub use settled::{settled_v4, settled_v6};

use crate::wire::{IPPROTO_TCP, IPPROTO_UDP};
use crate::{Address, Port};

/// Side of a pod that nothing restricts.
pub const NO_POLICY: u64 = 0;
/// Class of IPv4 addresses without a row.
pub const CLASS_V4: u64 = 4;
/// Class of IPv6 addresses without a row.
pub const CLASS_V6: u64 = 6;

/// [`Outcome::by`]: no policy is about it.
pub const BY_DEFAULT: u64 = 1;
/// [`Outcome::by`]: a pod reaches itself.
pub const BY_ITSELF: u64 = 2;
/// [`Outcome::by`]: a row is missing. Tables that are incomplete let nothing
/// pass.
pub const BY_DAMAGE: u64 = 3;
/// [`DenialKey::by`]: it is in the middle of a connection that is not known.
pub const BY_NO_CONNECTION: u64 = 4;

const IPPROTO_SCTP: u8 = 132;
/// Levels of port nodes: eight ranges each, 8^6 is more than there are ports.
const LEVELS: usize = 6;

/// Of the pod whose policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// The tables that policies are looked up in.
pub trait PolicyTables {
    fn pod(&self, address: &Address) -> Option<&PolicyPod>;
    /// Of the longest prefix that has the address in it.
    fn class(&self, address: &Address) -> Option<u64>;
    fn pair(&self, key: &PairKey) -> Option<&PairRow>;
    fn port_node(&self, index: u32) -> Option<&PortNode>;
}

/// What a policy is asked about: the first packet of a connection, as it looks
/// once its destination is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The pod of this node.
    pub pod: Address,
    pub direction: Direction,
    pub other: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// Of the destination.
    pub port: Port,
}

/// Whether a connection may be.
///
/// The pod's row is read first: an update puts classes in place before it puts
/// pods in place, so who sees the new row of a pod sees the classes that it
/// needs.
#[inline(always)]
#[must_use]
pub fn judge(tables: &impl PolicyTables, question: &Question) -> Outcome {
    let Question {
        pod,
        direction,
        other,
        protocol,
        port,
    } = question;
    let side = match direction {
        Direction::Ingress => PolicyPod::INGRESS,
        Direction::Egress => PolicyPod::EGRESS,
    };
    judge_side(tables, (pod, side), other, (*protocol, *port), |word| word)
}

/// As [`judge`], with a side of the pod. `blur`: as [`Policing::blur`].
#[inline(always)]
fn judge_side(
    tables: &impl PolicyTables,
    (pod, side): (&Address, u32),
    other: &Address,
    (protocol, port): (u8, Port),
    mut blur: impl FnMut(u32) -> u32,
) -> Outcome {
    let Some(row) = tables.pod(pod) else {
        return Outcome::deny(BY_DAMAGE);
    };
    let policy = row.side(side);
    if policy == NO_POLICY {
        return Outcome::allow(BY_DEFAULT);
    }
    if pod == other {
        return Outcome::allow(BY_ITSELF);
    }
    let base = if other.is_v4() { CLASS_V4 } else { CLASS_V6 };
    let class = tables.class(other).unwrap_or(base);
    let mut row = tables.pair(&PairKey { policy, class });
    if row.is_none() {
        // What is not said of a class is as for everybody.
        let class = base;
        row = tables.pair(&PairKey { policy, class });
    }
    let Some(row) = row else {
        return Outcome::deny(BY_DAMAGE);
    };
    let cell = blur(match protocol {
        IPPROTO_TCP => 0,
        IPPROTO_UDP => 1,
        IPPROTO_SCTP => 2,
        _ => 3,
    });
    by_port(tables, row.cell(cell), port.host())
}

/// Follows an outcome that depends on the port to one that does not.
#[inline(always)]
fn by_port(tables: &impl PolicyTables, mut outcome: Outcome, port: u16) -> Outcome {
    for _ in 0..LEVELS {
        let Some(index) = outcome.node() else {
            return outcome;
        };
        match tables.port_node(index) {
            Some(node) => outcome = node.at(port),
            None => return Outcome::deny(BY_DAMAGE),
        }
    }
    match outcome.node() {
        None => outcome,
        Some(_) => Outcome::deny(BY_DAMAGE),
    }
}

#[cfg(test)]
mod tests;
