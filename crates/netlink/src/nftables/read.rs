//! What the kernel says of a table's objects.

use super::Element;
use super::expression::{DATA_VALUE, DATA_VERDICT, VERDICT_CHAIN, VERDICT_CODE, Verdict};
use super::set::comment;
use crate::attributes::{attributes, text, u32_at};

/// `enum nf_inet_hooks`.
const NF_INET_FORWARD: u32 = 2;
/// `struct nfgenmsg` comes before the attributes.
pub(super) const GENERIC: usize = 4;

/// A rule as far as it can be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRead {
    pub chain: String,
    pub comment: String,
    /// What its counter says, if it has one.
    pub packets: Option<u64>,
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
        packets: find(rest, 4)
            .and_then(|list| attributes(list).find_map(|(_, expression)| counter(expression)))
            .map(|(packets, _)| packets),
    })
}

/// Packets and bytes of a counter: `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`,
/// `NFTA_COUNTER_BYTES`, `NFTA_COUNTER_PACKETS`.
fn counter(expression: &[u8]) -> Option<(u64, u64)> {
    find(expression, 1).filter(|name| text(name) == "counter")?;
    let data = find(expression, 2)?;
    let number = |kind| Some(u64::from_be_bytes(find(data, kind)?.try_into().ok()?));
    Some((number(2)?, number(1)?))
}

/// A chain in a table that may be somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// As `nft` calls it: `ip`, `ip6`, `inet`, ...
    pub family: &'static str,
    pub table: String,
    pub chain: String,
}

/// A base chain at the forward hook whose policy is to drop.
pub(super) fn forward_drop(payload: &[u8]) -> Option<ForeignChain> {
    // struct nfgenmsg, NFPROTO_*
    let family = match payload.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let rest = payload.get(GENERIC..)?;
    let number = |bytes: &[u8]| u32_at(bytes, 0).map(u32::from_be);
    // NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM; NFTA_CHAIN_POLICY, NF_DROP
    let hook = find(rest, 4).and_then(|hook| number(find(hook, 1)?))?;
    let policy = find(rest, 5).and_then(number)?;
    (hook == NF_INET_FORWARD && policy == 0).then_some(())?;
    Some(ForeignChain {
        family,
        table: find(rest, 1).map(text)?,
        chain: find(rest, 3).map(text)?,
    })
}

/// `NFTA_SET_COUNT`.
pub(super) fn count(payload: &[u8]) -> Option<u32> {
    u32_at(find(payload.get(GENERIC..)?, 20)?, 0).map(u32::from_be)
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
                    let code = find(verdict, VERDICT_CODE).and_then(|code| u32_at(code, 0));
                    let chain = find(verdict, VERDICT_CHAIN).map(text);
                    element.verdict = code
                        .and_then(|code| Verdict::read(u32::from_be(code).cast_signed(), chain));
                }
            }
            3 => element.ends_range = u32_at(value, 0).map(u32::from_be)? & 1 != 0,
            6 => element.comment = comment(value),
            7 => (element.packets, element.bytes) = counter(value).unwrap_or_default(),
            10 => element.key_end = Some(find(value, DATA_VALUE)?.to_vec()),
            _ => {}
        }
    }
    (!element.key.is_empty()).then_some(element)
}
