//! Which rules a connection passed.
//!
//! The number of the rules is kept in the connection's security mark: 4 bytes that
//! rules read and write, and of which nothing else makes use unless an
//! administrator has rules for marks of SELinux (`ct secmark`), beside which this
//! engine must not run. Its other marks are everybody's, and its labels never lose
//! a bit by rules. A kernel without such marks (`CONFIG_NF_CONNTRACK_SECMARK`)
//! judges each packet.

use std::hash::{BuildHasher, RandomState};

use ripstop_netlink::nftables::{Batch, CtKey, Expression, Nftables, Register};

/// Of the rules; no connection of before a change has the one of after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Generation(pub(super) u32);

impl Generation {
    /// What stands for any, where rules are compared.
    pub(in super::super) const ANY: Self = Self(0);

    /// One that nobody has who passed another process's rules, but by an accident
    /// of 1 in 4 billion.
    pub(in super::super) fn first() -> Self {
        let [.., a, b, c, d] = RandomState::new().hash_one(()).to_be_bytes();
        Self(u32::from_be_bytes([a, b, c, d])).next()
    }

    /// 0 is that of connections that passed none.
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1).max(1))
    }
}

/// Whether connections have such a mark: a table with a rule about it is made and
/// removed in one transaction, and no packet meets it.
pub(in super::super) fn is_supported(nftables: &mut Nftables) -> bool {
    const NAME: &str = "ripstop-try";
    let word = Register::word(0);
    let mut batch = Batch::new(NAME);
    batch.create_table("");
    batch.create_chain(NAME, None);
    let read = Expression::Ct {
        key: CtKey::SecurityMark,
        direction: None,
        to: word,
    };
    let write = Expression::SetSecurityMark { from: word };
    batch.add_rule(NAME, "", &[read, write]);
    batch.delete_table();
    nftables.commit(&batch).is_ok()
}
