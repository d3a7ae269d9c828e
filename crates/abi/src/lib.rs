//! What kernel programs and user space share: the tables' keys and values, and
//! every decision that is made on them.
//!
//! Owns layouts (sizes asserted), parsing, translation and verdicts; the same
//! code runs in the kernel, in unit and property tests and beside the loaded
//! programs in packet tests. Refuses allocation, I/O, system calls and anything
//! that knows how a table is stored: lookups come in through [`Tables`] and
//! [`Services`].

#![no_std]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;
#[cfg(any(test, feature = "test-packets"))]
extern crate std;

mod address;
mod answer;
#[cfg(not(target_arch = "bpf"))]
mod bytes;
mod crc32c;
mod crossing;
mod forward;
mod layout;
mod packet;
mod parts;
mod policy;
mod quoted;
mod service;
mod table;
#[cfg(any(test, feature = "test-packets"))]
pub mod test_packets;
mod translate;
mod verdict;
mod wire;

pub use address::{Address, Port};
#[cfg(not(target_arch = "bpf"))]
pub use bytes::PacketBytes;
pub use crc32c::product as crc32c_product;
pub use crossing::{
    begun, claimed, decided_from_outside, decided_from_pod, decided_to_outside, left_v4, left_v6,
    performed_v4, performed_v6, read_v4, read_v6, stranded,
};
pub use forward::{Tables, from_outside, from_pod, part_for_stack, to_outside, to_pod};
pub use layout::{Field, Layout};
pub use packet::{ChecksumChange, Covered, Packet};
pub use parts::{first_part, note_part};
pub use policy::{
    BY_DAMAGE, BY_DEFAULT, BY_ITSELF, BY_NO_CONNECTION, CLASS_V4, CLASS_V6, ClassKey, Connection,
    ConnectionKey, Connections, DenialKey, DenialRow, Direction, Judgement, NO_POLICY, Outcome,
    POLICY_ALONE, POLICY_OBSERVES, POLICY_REJECTS, POLICY_RETIRED, PairKey, PairRow, Place,
    Policing, PolicyPod, PolicyState, PolicyTables, PortNode, Question, ShareKey, asked_v4,
    asked_v6, is_first, judge, judged, noted, placed, policed, policy_names, settled_v4,
    settled_v6,
};
pub use service::{Caller, Choice, Chosen, Services, choose, leads_datagrams, original, picked};
pub use table::*;
pub use verdict::{DropReason, FinalVerdict, Verdict};
pub use wire::{
    ETH_LEN, ETH_P_IPV6, Header, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP,
    IPPROTO_UDP, TUNNEL_PORT,
};
