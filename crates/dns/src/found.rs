//! The addresses that a reply gives to names, and who is told of them.

use std::fmt;
use std::net::IpAddr;

use tokio::sync::oneshot;

use crate::name::{LABEL_MAX, NAME_MAX, Name};
use crate::query::{HEADER, be16, skip_name};
use crate::reply::{CLASS_IN, kind};

/// Aliases on the way to an address that are followed; resolvers give up sooner.
const ALIASES: usize = 16;
/// Pointers in one name: each has to lead further back.
const POINTERS: usize = 128;

/// What one reply says: all of these names have all of these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name in question, and those that it is an alias of. Lower case, without
    /// the final dot.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// For how long that holds, seconds: the least of all records on the way.
    pub ttl: u32,
}

/// Rings when what was told is in force.
pub type Ready = oneshot::Receiver<()>;

/// Wants to know of addresses before those who asked for them do.
pub trait Witness: Send + Sync + fmt::Debug {
    /// Whether there is any name that it wants to know of. Asked for each reply.
    fn listens(&self) -> bool;

    /// Tells of a reply. If there is something to wait for, the reply waits for it,
    /// but not for long.
    fn tell(&self, found: Found) -> Option<Ready>;
}

impl Found {
    /// Reads a reply; `None` if it has no address for the name in question.
    pub(crate) fn read(reply: &[u8]) -> Option<Self> {
        let (questions, answers) = (be16(reply, 4)?, be16(reply, 6)?);
        if reply[3] & 0xf != 0 || questions != 1 || answers == 0 {
            return None;
        }
        let question_end = skip_name(reply, HEADER)?;
        if !matches!(
            be16(reply, question_end)?,
            kind::A | kind::AAAA | kind::ANY | kind::CNAME
        ) {
            return None;
        }
        let records = records(reply, question_end + 4, answers)?;
        let mut names = vec![name_at(reply, HEADER)?];
        let mut ttl = u32::MAX;
        while let Some(alias) = names.last().and_then(|last| {
            records
                .iter()
                .find(|r| r.target.is_some() && r.owner == *last)
        }) {
            let target = alias.target.clone()?;
            if names.contains(&target) || names.len() > ALIASES {
                return None;
            }
            ttl = ttl.min(alias.ttl);
            names.push(target);
        }
        let mut addresses = Vec::new();
        let last = names.last()?;
        for record in records.iter().filter(|record| record.owner == *last) {
            if let Some(address) = record.address {
                addresses.push(address);
                ttl = ttl.min(record.ttl);
            }
        }
        let names = names.iter().map(|name| {
            let text = name.to_string();
            text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
        });
        (!addresses.is_empty()).then(|| Self {
            names: names.collect(),
            addresses,
            ttl,
        })
    }
}

/// An address, or an alias.
struct Record {
    owner: Name,
    ttl: u32,
    address: Option<IpAddr>,
    target: Option<Name>,
}

/// The answers that are addresses or aliases. `None` if they are cut short.
fn records(reply: &[u8], mut at: usize, count: u16) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..count {
        let start = at;
        at = skip_name(reply, at)?;
        let (kind, class) = (be16(reply, at)?, be16(reply, at + 2)?);
        let ttl = u32::from(be16(reply, at + 4)?) << 16 | u32::from(be16(reply, at + 6)?);
        let length = usize::from(be16(reply, at + 8)?);
        let data_at = at + 10;
        let data = reply.get(data_at..data_at + length)?;
        at = data_at + length;
        if class != CLASS_IN {
            continue;
        }
        let address = match kind {
            kind::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            kind::AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        };
        let target = match kind {
            kind::CNAME => name_at(reply, data_at),
            _ => None,
        };
        if address.is_some() || target.is_some() {
            let owner = name_at(reply, start)?;
            records.push(Record {
                owner,
                ttl,
                address,
                target,
            });
        }
    }
    Some(records)
}

/// The name at `at`, pointers followed (RFC 1035, 4.1.4).
fn name_at(reply: &[u8], mut at: usize) -> Option<Name> {
    let mut wire = [0; NAME_MAX];
    let mut length = 0;
    let mut pointers = 0;
    loop {
        let label = usize::from(*reply.get(at)?);
        match label {
            0xc0.. => {
                let to = usize::from(be16(reply, at)? & 0x3fff);
                pointers += 1;
                if to >= at || pointers > POINTERS {
                    return None;
                }
                at = to;
            }
            0..=LABEL_MAX => {
                let bytes = reply.get(at..=at + label)?;
                wire.get_mut(length..length + bytes.len())?
                    .copy_from_slice(bytes);
                length += bytes.len();
                at += bytes.len();
                if label == 0 {
                    return Name::read(&wire[..length]);
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use hickory_proto::rr::{Name as ForeignName, RData, Record as ForeignRecord, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ForeignName {
        ForeignName::from_str(text).unwrap()
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> ForeignRecord {
        ForeignRecord::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn address(owner: &str, ttl: u32, address: &str) -> ForeignRecord {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        ForeignRecord::from_rdata(name(owner), ttl, data)
    }

    fn reply(asked: &str, answers: Vec<ForeignRecord>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name(asked), RecordType::A));
        message.answers = answers;
        message.to_vec().unwrap()
    }

    #[test]
    fn a_chain_of_aliases_in_any_order() {
        let records = vec![
            address("edge.cdn.example.", 60, "192.0.2.1"),
            alias("www.shop.example.", 300, "shop.cdn.example."),
            alias("SHOP.cdn.example.", 20, "edge.cdn.example."),
            address("edge.cdn.example.", 50, "192.0.2.2"),
            address("other.example.", 1, "192.0.2.9"),
        ];
        let found = Found::read(&reply("WWW.Shop.example.", records)).unwrap();
        let expected = Found {
            names: ["www.shop.example", "shop.cdn.example", "edge.cdn.example"]
                .map(str::to_owned)
                .to_vec(),
            addresses: ["192.0.2.1", "192.0.2.2"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
            ttl: 20,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_says_nothing_of_addresses() {
        let nothing = |asked, records| assert_eq!(Found::read(&reply(asked, records)), None);
        nothing("a.example.", vec![]);
        nothing("a.example.", vec![alias("a.example.", 1, "b.example.")]);
        nothing("a.example.", vec![address("b.example.", 1, "192.0.2.1")]);
        let circle = vec![
            alias("a.example.", 1, "b.example."),
            alias("b.example.", 1, "a.example."),
            address("a.example.", 1, "192.0.2.1"),
        ];
        nothing("a.example.", circle);
        let mut failed = Message::from_vec(&reply(
            "a.example.",
            vec![address("a.example.", 1, "2001:db8::1")],
        ))
        .unwrap();
        assert!(Found::read(&failed.to_vec().unwrap()).is_some());
        failed.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(Found::read(&failed.to_vec().unwrap()), None);
    }

    proptest! {
        /// No byte of a reply is trusted, pointers least of all.
        #[test]
        fn damage_does_no_harm(damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12), cut in any::<proptest::sample::Index>()) {
            let records = vec![
                alias("www.shop.example.", 300, "shop.cdn.example."),
                alias("shop.cdn.example.", 20, "edge.cdn.example."),
                address("edge.cdn.example.", 50, "192.0.2.2"),
                address("edge.cdn.example.", 50, "2001:db8::2"),
            ];
            let mut wire = reply("www.shop.example.", records);
            for (at, byte) in damage {
                let at = at.index(wire.len());
                wire[at] = byte;
            }
            if let Some(found) = Found::read(&wire) {
                prop_assert!(!found.addresses.is_empty() && found.names.len() <= 4);
            }
            wire.truncate(cut.index(wire.len()));
            let _ = Found::read(&wire);
        }
    }
}
