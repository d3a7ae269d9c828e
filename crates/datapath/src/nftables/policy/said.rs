//! What a side says of a class, as elements of hash tables: the pair leads to a
//! row, and the ports that the row allows are elements, each for all ports that
//! begin with the same bits. So rows that are alike are there once, and a change
//! of one pair is one element.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use ripstop_model::Protocol;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::{Cell, ClassId, PolicyId, PolicyTables, PortsId, RuleRow};

use super::chains::id_data;

/// Protocols by number whose packets have ports.
pub(super) const WITH_PORTS: [u8; 3] = [
    Protocol::Tcp as u8,
    Protocol::Udp as u8,
    Protocol::Sctp as u8,
];
/// Stands for all others: the number of an IPv6 header of hop-by-hop options,
/// which is no transport protocol.
const OTHERS: u8 = 0;
/// How many bits of a port elements may have in common; the likely ones first.
/// A range takes at most 104 elements.
pub(super) const LENGTHS: [u8; 5] = [16, 0, 12, 8, 4];

/// A row, made from what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId(u64);

/// A protocol and all ports that begin with the first `length` bits of `port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ports {
    protocol: u8,
    port: u16,
    length: u8,
}

/// Fields begin at words of 4 bytes, as rules load them.
pub(super) fn pair_key((side, class): (PolicyId, ClassId), family: Family) -> Vec<u8> {
    [
        &side.number().to_be_bytes()[..],
        &[family.number(), 0, 0, 0],
        &class.number().to_be_bytes(),
    ]
    .concat()
}

/// The pair of a key; `None` if nobody of ours wrote this.
pub(super) fn read_pair(key: &[u8]) -> Option<(PolicyId, ClassId)> {
    let (side, rest) = key.split_at_checked(8)?;
    let class = rest.get(4..)?;
    Some((
        PolicyId::from_number(u64::from_be_bytes(side.try_into().ok()?)),
        ClassId::from_number(u64::from_be_bytes(class.try_into().ok()?)),
    ))
}

/// Leads a pair to its row.
pub(super) fn pair(pair: (PolicyId, ClassId), family: Family, row: RowId) -> Element {
    Element::pair(pair_key(pair, family), id_data(row.0))
}

/// What a row allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: RowId,
    allowed: Vec<Ports>,
}

impl Row {
    fn new(row: &RuleRow, tables: &PolicyTables) -> Self {
        let mut allowed = Vec::new();
        for (protocol, cell) in WITH_PORTS.into_iter().zip([row.tcp, row.udp, row.sctp]) {
            let of = |(first, last)| cut(protocol, first, last);
            allowed.extend(ranges(cell, tables).into_iter().flat_map(of));
        }
        if row.other.allowed {
            allowed.extend(cut(OTHERS, 0, u16::MAX));
        }
        let mut hasher = DefaultHasher::new();
        allowed.hash(&mut hasher);
        Self {
            id: RowId(hasher.finish()),
            allowed,
        }
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = Element> {
        let id = self.id.0.to_be_bytes();
        self.allowed.iter().map(move |ports| {
            let [high, low] = ports.port.to_be_bytes();
            let rest = [
                [ports.protocol, 0, 0, 0],
                [high, low, 0, 0],
                [ports.length, 0, 0, 0],
            ];
            Element::key([&id[..], &rest.concat()].concat())
        })
    }
}

/// Ports that a cell allows: first and last, sorted, not adjacent.
fn ranges(cell: Cell, tables: &PolicyTables) -> Vec<(u16, u16)> {
    let of_table = |id: PortsId| {
        // One that is not there says nothing: nothing is to pass.
        let steps = tables.ports.get(&id).map_or(&[][..], |table| &table.0);
        let mut found: Vec<(u16, u16)> = Vec::new();
        for (index, (first, outcome)) in steps.iter().enumerate() {
            if !outcome.allowed {
                continue;
            }
            let last = steps.get(index + 1).map_or(u16::MAX, |(next, _)| next - 1);
            match found.last_mut() {
                Some(before) if before.1.checked_add(1) == Some(*first) => before.1 = last,
                _ => found.push((*first, last)),
            }
        }
        found
    };
    match cell {
        Cell::All(outcome) if outcome.allowed => vec![(0, u16::MAX)],
        Cell::All(_) => Vec::new(),
        Cell::ByPort(id) => of_table(id),
    }
}

/// As few as cover a range, of [`LENGTHS`].
fn cut(protocol: u8, first: u16, last: u16) -> impl Iterator<Item = Ports> {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    std::iter::from_fn(move || {
        let port = u16::try_from(at).ok().filter(|_| at < end)?;
        let fits = |length: &u8| {
            let size = 1 << (16 - u32::from(*length));
            at.is_multiple_of(size) && at + size <= end
        };
        let length = LENGTHS.into_iter().filter(fits).min()?;
        at += 1 << (16 - u32::from(length));
        Some(Ports {
            protocol,
            port,
            length,
        })
    })
}

/// Rows of pairs, each made once.
#[derive(Debug, Default)]
pub(super) struct Rows(HashMap<RuleRow, Row>);

impl Rows {
    /// The row of a pair, if it has one.
    pub(super) fn of(&mut self, tables: &PolicyTables, pair: (PolicyId, ClassId)) -> Option<&Row> {
        let row = tables.rules.get(&pair)?;
        Some(self.0.entry(**row).or_insert_with(|| Row::new(row, tables)))
    }
}

/// How many pairs of a family lead to each row, and what it allows.
pub(super) type Uses = BTreeMap<(Family, RowId), (usize, Row)>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;
    use ripstop_plan::policy::{AttributionId, Outcome, PortTable};

    use super::*;

    fn outcome(allowed: bool) -> Outcome {
        Outcome {
            allowed,
            by: AttributionId::from_number(20),
        }
    }

    /// As the rules ask.
    fn is_allowed(row: &Row, protocol: u8, port: u16) -> bool {
        let found: BTreeSet<Vec<u8>> = row.elements().map(|element| element.key).collect();
        let asked = |protocol: u8, port: u16, length: u8| {
            let allowed = vec![Ports {
                protocol,
                port,
                length,
            }];
            let row = Row {
                id: row.id,
                allowed,
            };
            row.elements().all(|element| found.contains(&element.key))
        };
        let by_bits = |length: u8| {
            let mask = u16::MAX.checked_shl(16 - u32::from(length)).unwrap_or(0);
            asked(protocol, port & mask, length)
        };
        LENGTHS.into_iter().any(by_bits) || !WITH_PORTS.contains(&protocol) && asked(OTHERS, 0, 0)
    }

    #[test]
    fn what_is_allowed_is_found_by_protocol_and_port() {
        let pair = (PolicyId::from_number(100), ClassId::from_number(50));
        let ports = PortsId::from_number(7);
        let mut tables = PolicyTables::default();
        let table = PortTable(vec![
            (0, outcome(false)),
            (80, outcome(true)),
            (91, outcome(false)),
        ]);
        tables.ports.insert(ports, Arc::new(table));
        let mut row = RuleRow {
            tcp: Cell::ByPort(ports),
            udp: Cell::All(outcome(true)),
            sctp: Cell::ByPort(PortsId::from_number(8)),
            other: outcome(false),
        };
        for other in [false, true] {
            row.other = outcome(other);
            let mut rows = Rows::default();
            tables.rules.insert(pair, Arc::new(row));
            let found = rows.of(&tables, pair).unwrap();
            for (protocol, port, allowed) in [
                (1, 0, other),
                (1, 80, other),
                (0, 80, other),
                (6, 79, false),
                (6, 80, true),
                (6, 90, true),
                (6, 91, false),
                (6, 65535, false),
                (7, 80, other),
                (17, 0, true),
                (17, 65535, true),
                (18, 0, other),
                // Its ports are not known.
                (132, 80, false),
                (255, 65535, other),
            ] {
                assert_eq!(
                    is_allowed(found, protocol, port),
                    allowed,
                    "{protocol} {port}"
                );
            }
        }
        let neighbour = (PolicyId::from_number(100), ClassId::from_number(51));
        assert_eq!(Rows::default().of(&tables, neighbour), None);
    }

    #[test]
    fn pairs_are_read_as_they_were_written() {
        let pair = (PolicyId::from_number(1 << 60 | 3), ClassId::V6);
        for family in [Family::V4, Family::V6] {
            let element = super::pair(pair, family, RowId(5));
            assert_eq!(read_pair(&element.key), Some(pair));
        }
        assert_eq!(read_pair(&[0; 19]), None);
    }

    proptest! {
        #[test]
        fn pieces_are_the_range(first in any::<u16>(), last in any::<u16>()) {
            let (first, last) = (first.min(last), first.max(last));
            let mut next = u32::from(first);
            let mut count = 0;
            for piece in cut(6, first, last) {
                prop_assert_eq!(u32::from(piece.port), next);
                next += 1 << (16 - u32::from(piece.length));
                count += 1;
            }
            prop_assert_eq!(next, u32::from(last) + 1);
            prop_assert!(count <= 104);
        }
    }
}
