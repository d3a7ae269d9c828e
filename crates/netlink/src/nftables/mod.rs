//! nf_tables: tables, chains, rules, sets and maps, changed in transactions.
//!
//! A [`Batch`] is one transaction: a packet sees all of it or nothing
//! (include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c).

mod batch;
mod expression;
mod read;
mod set;
mod socket;

pub use batch::{Batch, Hook, HookPoint};
pub use expression::{
    AddressKind, CONNECTION_MISSING, Compare, CtKey, Direction, Expression, Family, Header,
    MetaKey, Refusal, Register, Update, Verdict,
};
pub use read::{ForeignChain, RuleRead};
pub use set::{DataKind, Element, Field, SetSpec};
pub use socket::Nftables;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: one table for both families.
const INET: u8 = 1;
/// `NFPROTO_UNSPEC`: tables of every family.
const UNSPECIFIED: u8 = 0;
/// Names have at most this many bytes (`NFT_NAME_MAXLEN`, less the zero byte).
pub const LONGEST_NAME: usize = 255;

/// `enum nf_tables_msg_types`.
mod message {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const DELETE_CHAIN: u16 = 5;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const GET_SET: u16 = 10;
    pub(super) const NEW_ELEMENT: u16 = 12;
    pub(super) const GET_ELEMENT: u16 = 13;
    pub(super) const DELETE_ELEMENT: u16 = 14;
}
