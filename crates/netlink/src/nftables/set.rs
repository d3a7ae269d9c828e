//! Sets and maps, and what is in them.

use super::expression::{DATA_VALUE, Expression, Verdict};
use crate::write::Attributes;

/// `enum nft_set_flags`.
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const DYNAMIC: u32 = 0x20;
const CONCATENATED: u32 = 0x80;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// Bits that each field takes in the number of a concatenated type, which only
/// `nft list` looks at.
const TYPE_BITS: u32 = 6;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// User data of an element: the type of a comment, as libnftnl writes it.
const COMMENT: u8 = 0;

/// One field of a key or of data. Each begins at a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    /// Index of an interface.
    Interface,
    /// 4 bytes without a meaning of their own.
    Number,
    /// So many bytes, in the place of several fields: for keys of ranges that are
    /// ordered as a whole, and not field by field.
    Bytes(u32),
}

impl Field {
    /// In bytes, without padding.
    pub const fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Number | Self::Interface => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Bytes(length) => length,
        }
    }

    /// As `nft` numbers its data types (include/datatype.h of nftables).
    const fn kind(self) -> u32 {
        match self {
            Self::Bytes(_) => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Number => 19,
            Self::Interface => 20,
        }
    }
}

fn kind(fields: &[Field]) -> u32 {
    fields
        .iter()
        .fold(0, |kind, field| kind << TYPE_BITS | field.kind())
}

fn length(fields: &[Field]) -> u32 {
    fields
        .iter()
        .map(|field| field.length().next_multiple_of(4))
        .sum()
}

/// What keys lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Nothing: a set.
    None,
    Fields(&'static [Field]),
    Verdict,
}

/// What a set is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSpec {
    pub name: &'static str,
    pub key: &'static [Field],
    pub data: DataKind,
    /// Its elements are ranges.
    pub ranges: bool,
    /// Packets make its elements, at most this many, which have a timeout.
    pub dynamic: Option<u32>,
    /// Each element counts the packets that found it.
    pub counts: bool,
}

impl SetSpec {
    /// A set of single keys.
    pub const fn set(name: &'static str, key: &'static [Field]) -> Self {
        Self {
            name,
            key,
            data: DataKind::None,
            ranges: false,
            dynamic: None,
            counts: false,
        }
    }

    /// A key of several fields that are ranges, in one element with both ends.
    pub(super) fn has_two_ends(&self) -> bool {
        self.ranges && self.key.len() > 1
    }

    pub(super) fn write(&self, table: &str, id: u32, to: &mut Attributes) {
        let mut flags = 0;
        if self.ranges {
            flags |= INTERVAL;
        }
        if self.has_two_ends() {
            flags |= CONCATENATED;
        }
        if self.data != DataKind::None {
            flags |= MAP;
        }
        if self.dynamic.is_some() {
            flags |= DYNAMIC | TIMEOUT;
        }
        to.text(1, table)
            .text(2, self.name)
            .u32(3, flags)
            .u32(4, kind(self.key))
            .u32(5, length(self.key));
        match self.data {
            DataKind::None => {}
            DataKind::Verdict => {
                to.u32(6, VERDICT_TYPE).u32(7, 16);
            }
            DataKind::Fields(fields) => {
                to.u32(6, kind(fields)).u32(7, length(fields));
            }
        }
        to.nested(9, |description| {
            if let Some(size) = self.dynamic {
                description.u32(1, size);
            }
            if self.has_two_ends() {
                description.nested(2, |fields| {
                    for field in self.key {
                        fields.nested(1, |one| {
                            one.u32(1, field.length());
                        });
                    }
                });
            }
        });
        to.u32(10, id);
        if self.counts {
            to.nested(17, |to| Expression::Counter.write(to));
        }
    }
}

/// One element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    /// Last key of the range, in sets of ranges with several fields.
    pub key_end: Option<Vec<u8>>,
    /// This key is no longer of the range that began before it, in sets of
    /// ranges with one field.
    pub ends_range: bool,
    /// Empty in sets.
    pub data: Vec<u8>,
    /// Instead of `data`, in verdict maps.
    pub verdict: Option<Verdict>,
    /// At most 254 bytes; `nft list` shows it.
    pub comment: String,
    /// How long it is there, in dynamic sets; 0: until it is deleted. Not read.
    pub timeout_ms: u64,
    /// Packets that found it, where they are counted. Not written.
    pub packets: u64,
    /// The same in bytes, from the IP header on.
    pub bytes: u64,
}

impl Element {
    pub fn key(key: Vec<u8>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    pub fn pair(key: Vec<u8>, data: Vec<u8>) -> Self {
        Self {
            key,
            data,
            ..Self::default()
        }
    }

    /// With the header of the list's entry.
    pub(super) fn write(&self, to: &mut Attributes, whole: bool) {
        // NFTA_LIST_ELEM
        to.nested(1, |to| {
            to.nested(1, |key| {
                key.bytes(DATA_VALUE, &self.key);
            });
            if self.ends_range {
                to.u32(3, INTERVAL_END);
            }
            if let Some(end) = &self.key_end {
                to.nested(10, |key| {
                    key.bytes(DATA_VALUE, end);
                });
            }
            if !whole {
                return;
            }
            if let Some(verdict) = &self.verdict {
                to.nested(2, |data| verdict.write(data));
            } else if !self.data.is_empty() {
                to.nested(2, |data| {
                    data.bytes(DATA_VALUE, &self.data);
                });
            }
            if self.timeout_ms != 0 {
                to.u64(4, self.timeout_ms);
            }
            if !self.comment.is_empty() {
                to.bytes(6, &user_data(&self.comment));
            }
        });
    }
}

/// Type, length, text and a zero byte, as libnftnl does it.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let end = comment.len().min(254);
    let text = &comment.as_bytes()[..end];
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![COMMENT, length];
    data.extend_from_slice(text);
    data.push(0);
    data
}

/// The comment in user data; empty if there is none.
pub(super) fn comment(data: &[u8]) -> String {
    match data {
        [COMMENT, length, rest @ ..] => {
            let text = rest.get(..usize::from(*length)).unwrap_or(rest);
            crate::attributes::text(text)
        }
        _ => String::new(),
    }
}
