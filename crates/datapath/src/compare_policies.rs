//! The kernel's policy rows against the plan's, without touching either.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ipnet::IpNet;
use ripstop_plan::policy::{Cell, ClassId, Outcome, PolicyTables, PortTable, RuleRow};

/// One line for each row that is not as planned: the row, what there is, what
/// should be.
pub fn policy_difference(planned: &PolicyTables, found: &PolicyTables) -> Vec<String> {
    let mut lines = class_difference(&planned.classes, &found.classes);
    lines.extend(difference_but_classes(planned, found));
    lines
}

/// The same of classes alone.
pub(crate) fn class_difference(
    planned: &BTreeMap<IpNet, ClassId>,
    found: &BTreeMap<IpNet, ClassId>,
) -> Vec<String> {
    let mut lines = Vec::new();
    compare("class of", planned, found, &mut lines);
    lines
}

/// The same of all other rows.
pub(crate) fn difference_but_classes(planned: &PolicyTables, found: &PolicyTables) -> Vec<String> {
    let mut lines = Vec::new();
    compare("policies of", &planned.pods, &found.pods, &mut lines);
    let rules = |tables: &PolicyTables| -> BTreeMap<_, _> {
        let rules = tables.rules.iter();
        rules
            .map(|(key, row)| (*key, Rule::new(tables, row)))
            .collect()
    };
    compare("rule of", &rules(planned), &rules(found), &mut lines);
    lines
}

/// A rule with its ports: engines may keep those under other ids.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    by_protocol: [PortTable; 3],
    other: Outcome,
}

impl Rule {
    fn new(tables: &PolicyTables, row: &RuleRow) -> Self {
        let ports = |cell| match cell {
            Cell::All(outcome) => PortTable(vec![(0, outcome)]),
            Cell::ByPort(id) => match tables.ports.get(&id) {
                Some(table) => PortTable::clone(table),
                None => PortTable(Vec::new()),
            },
        };
        Self {
            by_protocol: [row.tcp, row.udp, row.sctp].map(ports),
            other: row.other,
        }
    }
}

fn compare<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    planned: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    lines: &mut Vec<String>,
) {
    for (key, row) in planned {
        match found.get(key) {
            Some(there) if there == row => {}
            Some(there) => lines.push(format!("{what} {key:?}: {there:?}, planned {row:?}")),
            None => lines.push(format!("{what} {key:?}: missing")),
        }
    }
    let extra = found.keys().filter(|key| !planned.contains_key(key));
    lines.extend(extra.map(|key| format!("{what} {key:?}: not planned")));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ripstop_plan::policy::{AttributionId, PodPolicies, PolicyId, PortsId};

    use super::*;

    fn outcome(allowed: bool) -> Outcome {
        let by = AttributionId::from_number(7);
        Outcome { allowed, by }
    }

    /// One pod and one rule; its ports are known as `ports`.
    fn tables(ports: u64) -> PolicyTables {
        let (side, ports) = (PolicyId::from_number(3), PortsId::from_number(ports));
        let mut tables = PolicyTables::default();
        let pod = PodPolicies {
            ingress: side,
            egress: PolicyId::NONE,
        };
        tables.pods.insert("10.0.0.1".parse().unwrap(), pod);
        let row = RuleRow {
            tcp: Cell::ByPort(ports),
            udp: Cell::All(outcome(false)),
            sctp: Cell::All(outcome(false)),
            other: outcome(false),
        };
        tables.rules.insert((side, ClassId::V4), Arc::new(row));
        let table = PortTable(vec![(0, outcome(false)), (80, outcome(true))]);
        tables.ports.insert(ports, Arc::new(table));
        tables
    }

    #[test]
    fn ids_of_ports_are_the_engines_own() {
        assert_eq!(policy_difference(&tables(1), &tables(2)), [""; 0]);
    }

    #[test]
    fn each_difference_is_named() {
        let planned = tables(1);
        let mut found = tables(1);
        let table = PortTable(vec![(0, outcome(false)), (81, outcome(true))]);
        found.ports.insert(PortsId::from_number(1), Arc::new(table));
        found.pods.clear();
        let net = "10.0.0.0/8".parse().unwrap();
        found.classes.insert(net, ClassId::from_number(99));
        let lines = policy_difference(&planned, &found);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert_eq!(lines[0], "class of 10.0.0.0/8: not planned");
        assert_eq!(lines[1], "policies of 10.0.0.1: missing");
        assert!(lines[2].starts_with("rule of (PolicyId(3)"), "{}", lines[2]);
    }
}
