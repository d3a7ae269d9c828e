//! Flows whose packets are translated one by one.

use super::{Part, PartKey};
use crate::layout::layout;
use crate::{Address, Port};

/// The packets of one direction of a flow as they come. An ICMP echo has its
/// identifier as the port of who asks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    pub source: Address,
    pub destination: Address,
    pub source_port: Port,
    pub destination_port: Port,
    pub protocol: u32,
}

/// One side said that it has ended.
pub const FLOW_CLOSING: u32 = 1;
/// Packets of who was asked.
pub const FLOW_REPLY: u32 = 2;
/// The flow ends with its backend (all but TCP, whose connections live on).
pub const FLOW_TRACKS_BACKEND: u32 = 4;

/// The packets are translated where they leave the node.
pub const FLOW_LEAVES: u32 = 8;
/// Straight from a pod to another one, by a port that is not the sender's: answers
/// to its own would be taken for those of another flow.
pub const FLOW_RENUMBERED: u32 = 16;
/// Another engine still leads it: what is here keeps its port from being given to
/// others.
pub const FLOW_AWAITED: u32 = 32;

/// In the row of answers: who was asked has ended a connection first, and keeps its
/// name for a minute (TIME_WAIT; RFC 9293, 3.6.1). Another connection of that name has
/// other timestamps, and as a rule half of those are taken for old ones (RFC 7323, 5;
/// `tcp_timewait_state_process`): it comes about a second later, when the first
/// packet is sent again.
pub const FLOW_LINGERS: u32 = 64;

/// Among the shares: how many flows each pod may have begun, and all who are
/// outside of the cluster together.
pub const FLOWS_EACH: u32 = u32::MAX;
/// In the place of how many flows one has: all that it may have.
pub const NO_SHARE: u64 = u64::MAX;

/// For how many seconds after its last packet a flow keeps its port: as long as
/// connection tracking (`nf_conntrack_udp_timeout_stream`), and for connections
/// as long as kube-proxy sets that to (`conntrack.tcpCloseWaitTimeout` and
/// `tcpEstablishedTimeout`; RFC 5382, REQ-5 asks for two hours at least).
#[inline(always)]
pub const fn flow_patience(protocol: u32, replied: bool) -> u32 {
    const TCP: u32 = crate::wire::IPPROTO_TCP as u32;
    match protocol {
        TCP if replied => 24 * 60 * 60,
        _ => 120,
    }
}

/// What they become.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    #[cfg(feature = "next-layout")]
    pub added: u32,
    pub source: Address,
    pub destination: Address,
    pub source_port: Port,
    pub destination_port: Port,
    /// The backend that was chosen; 0, 0 if none was.
    pub set: u32,
    pub id: u32,
    /// Link by which the first packet came, for the answers' way back.
    pub ifindex: u32,
    /// `FLOW_*`.
    pub flags: u32,
    /// When the last packet of this direction came, seconds since boot; 0: none
    /// has yet.
    pub last: u32,
    /// Payload that was not yet added to the backend's.
    pub bytes: u32,
}

/// Room for what a packet program works with: its own stack is too small.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// The packet as it came.
    pub key: FlowKey,
    /// What it becomes.
    pub flow: Flow,
    /// The answers to that, as they will come.
    pub back: FlowKey,
    /// What those will become.
    pub answer: Flow,
    /// Whom the packet is to, whatever it is of; then which neighbour it goes to.
    pub destination: Address,
    /// Bytes behind the transport's header.
    pub payload: u32,
    /// Bytes between the IP header and the transport's, or [`Work::NOWHERE`].
    pub(crate) place: u32,
    /// The packet that it is a part of.
    pub(crate) part: Part,
    /// Room for its key.
    pub(crate) part_key: PartKey,
    /// See [`Work::blur`].
    blurred: u64,
}

impl Flow {
    /// (An assignment becomes a call.)
    #[inline(always)]
    pub(crate) fn copy_to(&self, to: &mut Self) {
        // SAFETY: two places of the same type.
        unsafe { core::ptr::copy_nonoverlapping(self, to, 1) };
    }
}

impl Work {
    /// The packet has no transport's header: it is a part, and not the first one.
    pub(crate) const NOWHERE: u32 = 1;

    /// The same word, of which the verifier no longer knows what it is: else it
    /// walks all that follows once for each value that a word can have.
    #[inline(always)]
    pub(crate) fn blur(&mut self, word: u64) -> u64 {
        // SAFETY: a word that is there.
        unsafe {
            core::ptr::write_volatile(&raw mut self.blurred, word);
            core::ptr::read_volatile(&raw const self.blurred)
        }
    }
}

layout! {
    FlowKey { source, destination, source_port, destination_port, protocol }
}

#[cfg(not(feature = "next-layout"))]
layout! {
    Flow {
        source, destination, source_port, destination_port, set, id, ifindex, flags, last, bytes,
    }
}

#[cfg(feature = "next-layout")]
layout! {
    Flow {
        added, source, destination, source_port, destination_port, set, id, ifindex, flags, last,
        bytes,
    }
}
