//! Ids that are made from what they stand for.
//!
//! The same content has the same id in every process, so an agent that starts
//! again finds its rows in the kernel, whatever the order in which objects come;
//! and an id never changes its meaning while rows that name it are replaced.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// SipHash of the content: nobody who writes policies can aim at the id of
/// somebody else's, and a hundred thousand contents collide by accident with a
/// probability of 3 in ten billion.
fn hash_of(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// As the kernel's tables have it.
            pub const fn number(self) -> u64 {
                self.0
            }

            /// Read back from the kernel's tables.
            pub const fn from_number(number: u64) -> Self {
                Self(number)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }
    )+};
}

ids! {
    /// What is in force on one side (ingress or egress) of a pod. Pods with equal
    /// rules have the same one.
    PolicyId,
    /// The policy peers that an address matches, all of them.
    ClassId,
    /// Verdicts by port.
    PortsId,
    /// Who said so. At most 62 bits: engines pack it with a verdict.
    AttributionId,
}

/// Peers of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeersId(u64);

impl PolicyId {
    /// No policy is about this side: everything is allowed, nothing to look up.
    pub const NONE: Self = Self(ripstop_abi::NO_POLICY);

    pub(super) fn of(content: &impl Hash) -> Self {
        Self(hash_of(content).max(1))
    }
}

impl ClassId {
    pub(super) const MIN: Self = Self(0);
    pub(super) const MAX: Self = Self(u64::MAX);
    /// IPv4 addresses that have no row of their own.
    pub const V4: Self = Self(ripstop_abi::CLASS_V4);
    /// IPv6 addresses that have no row of their own.
    pub const V6: Self = Self(ripstop_abi::CLASS_V6);

    /// The class of the addresses without a row, of one family.
    pub const fn base(is_ipv4: bool) -> Self {
        if is_ipv4 { Self::V4 } else { Self::V6 }
    }

    pub(super) fn of(content: &impl Hash) -> Self {
        Self(hash_of(content).max(16))
    }
}

impl PortsId {
    pub(super) fn of(content: &impl Hash) -> Self {
        Self(hash_of(content))
    }
}

impl AttributionId {
    pub(super) const DEFAULT: Self = Self(ripstop_abi::BY_DEFAULT);
    pub(super) const ITSELF: Self = Self(ripstop_abi::BY_ITSELF);
    pub(super) const NO_CONNECTION: Self = Self(ripstop_abi::BY_NO_CONNECTION);

    pub(super) fn of(content: &impl Hash) -> Self {
        Self((hash_of(content) >> 2).max(16))
    }
}

impl PeersId {
    /// The node that the pods are on.
    pub(super) const OWN_NODE: Self = Self(1);

    pub(super) fn of(content: &impl Hash) -> Self {
        Self(hash_of(content).max(16))
    }
}
