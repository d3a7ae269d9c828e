//! What the kernel says of a table's objects.

use super::Element;
use super::expression::{DATA_VALUE, DATA_VERDICT, VERDICT_CHAIN, Verdict};
use super::set::comment;
use crate::attributes::{attributes, text, u32_at};

/// `struct nfgenmsg` comes before the attributes.
pub(super) const GENERIC: usize = 4;

/// A rule as far as it can be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRead {
    pub chain: String,
    pub comment: String,
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(k, _)| *k == kind)
        .map(|(_, value)| value)
}

pub(super) fn name(payload: &[u8], kind: u16) -> Option<String> {
    find(payload.get(GENERIC..)?, kind).map(text)
}

pub(super) fn table_comment(payload: &[u8]) -> Option<String> {
    let rest = payload.get(GENERIC..)?;
    Some(find(rest, 6).map(comment).unwrap_or_default())
}

pub(super) fn rule(payload: &[u8], table: &str) -> Option<RuleRead> {
    let rest = payload.get(GENERIC..)?;
    if find(rest, 1).map(text)? != table {
        return None;
    }
    Some(RuleRead {
        chain: find(rest, 2).map(text)?,
        comment: find(rest, 7).map(comment).unwrap_or_default(),
    })
}

/// All elements of one message of a dump.
pub(super) fn elements(payload: &[u8]) -> Vec<Element> {
    let list = payload.get(GENERIC..).and_then(|rest| find(rest, 3));
    list.map(|list| {
        attributes(list)
            .filter_map(|(_, value)| element(value))
            .collect()
    })
    .unwrap_or_default()
}

fn element(bytes: &[u8]) -> Option<Element> {
    let mut element = Element::default();
    for (kind, value) in attributes(bytes) {
        match kind {
            1 => element.key = find(value, DATA_VALUE)?.to_vec(),
            2 => {
                if let Some(value) = find(value, DATA_VALUE) {
                    element.data = value.to_vec();
                } else if let Some(verdict) = find(value, DATA_VERDICT) {
                    element.verdict = find(verdict, VERDICT_CHAIN).map(text).map(Verdict::Goto);
                }
            }
            3 => element.ends_range = u32_at(value, 0).map(u32::from_be)? & 1 != 0,
            6 => element.comment = comment(value),
            // The counter: NFTA_EXPR_DATA, NFTA_COUNTER_PACKETS.
            7 => {
                let packets = find(value, 2).and_then(|data| find(data, 2));
                let number = packets.and_then(|p| <[u8; 8]>::try_from(p).ok());
                element.packets = number.map(u64::from_be_bytes).unwrap_or_default();
            }
            10 => element.key_end = Some(find(value, DATA_VALUE)?.to_vec()),
            _ => {}
        }
    }
    (!element.key.is_empty()).then_some(element)
}
