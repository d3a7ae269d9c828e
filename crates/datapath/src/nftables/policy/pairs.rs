//! What a side says of a class, as ranges of one map: its key is side, family,
//! class, protocol and port, ordered as a whole.

use ripstop_model::Protocol;
use ripstop_netlink::nftables::{Element, Family, Verdict};
use ripstop_plan::policy::{Cell, ClassId, PolicyId, PolicyTables, RuleRow};

use super::super::write::Parts;

/// Bytes of a key.
pub(in super::super) const KEY: u32 = 28;
/// Behind every protocol and port.
const END: [u8; 8] = [0xff; 8];

/// Fields begin at words of 4 bytes, as rules load them.
fn key(pair: (PolicyId, ClassId), family: Family, to: &[u8; 8]) -> Vec<u8> {
    [
        &pair.0.number().to_be_bytes()[..],
        &[family.number(), 0, 0, 0],
        &pair.1.number().to_be_bytes(),
        to,
    ]
    .concat()
}

fn destination(protocol: u8, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [protocol, 0, 0, 0, high, low, 0, 0]
}

/// Where a verdict begins that holds up to the next one: protocols by number, and
/// their ports.
fn borders(row: &RuleRow, tables: &PolicyTables) -> Vec<([u8; 8], bool)> {
    let mut borders = vec![(destination(0, 0), row.other.allowed)];
    for (protocol, cell) in [
        (Protocol::Tcp, row.tcp),
        (Protocol::Udp, row.udp),
        (Protocol::Sctp, row.sctp),
    ] {
        let protocol = protocol as u8;
        let mut add = |port, allowed| borders.push((destination(protocol, port), allowed));
        match cell {
            Cell::All(outcome) => add(0, outcome.allowed),
            Cell::ByPort(id) => match tables.ports.get(&id) {
                Some(table) => table
                    .0
                    .iter()
                    .for_each(|(port, one)| add(*port, one.allowed)),
                // Not whole: nothing is to pass.
                None => add(0, false),
            },
        }
        borders.push((destination(protocol + 1, 0), row.other.allowed));
    }
    borders.dedup_by_key(|(_, allowed)| *allowed);
    borders
}

/// The ranges of a pair that has a row.
pub(super) fn parts(
    tables: &PolicyTables,
    pair: (PolicyId, ClassId),
    family: Family,
    to: &mut Parts,
) {
    let Some(row) = tables.rules.get(&pair) else {
        return;
    };
    let borders = borders(row, tables);
    let ends = borders.iter().skip(1).map(|(at, _)| at).chain([&END]);
    for ((at, allowed), end) in borders.iter().zip(ends) {
        let verdict = match allowed {
            true => Verdict::Return,
            false => Verdict::Continue,
        };
        let begins = Element {
            verdict: Some(verdict),
            ..Element::key(key(pair, family, at))
        };
        let ends = Element {
            ends_range: true,
            ..Element::key(key(pair, family, end))
        };
        to.insert(begins.key.clone(), vec![begins, ends]);
    }
}

/// The pair that a key begins with; `None` if nobody of ours wrote this.
pub(super) fn read_pair(key: &[u8]) -> Option<(PolicyId, ClassId)> {
    let number = |from: usize| -> Option<u64> {
        let bytes = key.get(from..from + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    Some((
        PolicyId::from_number(number(0)?),
        ClassId::from_number(number(12)?),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ripstop_plan::policy::{AttributionId, Outcome, PortTable, PortsId};

    use super::*;

    fn outcome(allowed: bool) -> Outcome {
        Outcome {
            allowed,
            by: AttributionId::from_number(20),
        }
    }

    /// As the kernel finds it.
    fn look_up(parts: &Parts, key: &[u8]) -> Option<Verdict> {
        let elements = parts.values().flatten();
        let before = elements.filter(|element| &element.key[..] <= key);
        let found = before.max_by_key(|element| (&element.key, !element.ends_range))?;
        found.verdict.clone()
    }

    #[test]
    fn verdicts_are_found_by_protocol_and_port() {
        let pair = (PolicyId::from_number(100), ClassId::from_number(50));
        let neighbour = (PolicyId::from_number(100), ClassId::from_number(51));
        let ports = PortsId::from_number(7);
        let mut tables = PolicyTables::default();
        let table = PortTable(vec![
            (0, outcome(false)),
            (80, outcome(true)),
            (91, outcome(false)),
        ]);
        tables.ports.insert(ports, Arc::new(table));
        let row = RuleRow {
            tcp: Cell::ByPort(ports),
            udp: Cell::All(outcome(true)),
            sctp: Cell::ByPort(PortsId::from_number(8)),
            other: outcome(false),
        };
        tables.rules.insert(pair, Arc::new(row));
        for family in [Family::V4, Family::V6] {
            let mut found = Parts::new();
            parts(&tables, pair, family, &mut found);
            assert!(
                found
                    .values()
                    .flatten()
                    .all(|e| e.key.len() == KEY as usize)
            );
            for (protocol, port, allowed) in [
                (1, 0, false),
                (1, 80, false),
                (6, 79, false),
                (6, 80, true),
                (6, 90, true),
                (6, 91, false),
                (6, 65535, false),
                (7, 80, false),
                (17, 0, true),
                (17, 65535, true),
                (18, 0, false),
                // Its ports are not known.
                (132, 80, false),
                (255, 65535, false),
            ] {
                let expect = match allowed {
                    true => Verdict::Return,
                    false => Verdict::Continue,
                };
                let asked = key(pair, family, &destination(protocol, port));
                assert_eq!(look_up(&found, &asked), Some(expect), "{protocol} {port}");
                let asked = key(neighbour, family, &destination(protocol, port));
                assert_eq!(look_up(&found, &asked), None);
            }
            assert!(
                found
                    .values()
                    .flatten()
                    .all(|e| read_pair(&e.key) == Some(pair))
            );
        }
    }

    #[test]
    fn who_says_the_same_of_all_is_one_range() {
        let pair = (PolicyId::from_number(1), ClassId::V4);
        let [tcp, udp, sctp] = [Cell::All(outcome(true)); 3];
        let row = RuleRow {
            tcp,
            udp,
            sctp,
            other: outcome(true),
        };
        let mut tables = PolicyTables::default();
        tables.rules.insert(pair, Arc::new(row));
        let mut found = Parts::new();
        parts(&tables, pair, Family::V4, &mut found);
        assert_eq!(found.len(), 1);
    }
}
