//! The kernel's rows of one pod, for people.

use std::net::IpAddr;

use ripstop_plan::policy::{Cell, ClassId, Direction, Outcome, PolicyId, PolicyTables, RuleRow};
use serde::{Deserialize, Serialize};

/// What one side of a pod says to some addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowView {
    /// The pod's.
    pub(crate) address: IpAddr,
    pub(crate) direction: String,
    /// Prefixes of the other end.
    pub(crate) others: Vec<String>,
    pub(crate) tcp: Vec<PortsView>,
    pub(crate) udp: Vec<PortsView>,
    pub(crate) sctp: Vec<PortsView>,
    /// ICMP and everything else that has no ports.
    pub(crate) other: PortsView,
}

/// A verdict for some ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortsView {
    /// `80`, `8000-8999` or `*`.
    pub(crate) ports: String,
    pub(crate) allowed: bool,
    pub(crate) by: String,
}

/// The rows of one side of a pod's address. `by` names what an outcome is from.
pub(super) fn rows(
    tables: &PolicyTables,
    address: IpAddr,
    direction: Direction,
    by: &dyn Fn(Outcome) -> String,
) -> Vec<RowView> {
    let Some(policies) = tables.pods.get(&address) else {
        return Vec::new();
    };
    let policy = policies.side(direction);
    if policy == PolicyId::NONE {
        return Vec::new();
    }
    let (first, last) = (ClassId::from_number(0), ClassId::from_number(u64::MAX));
    let of_policy = tables.rules.range((policy, first)..=(policy, last));
    let views = of_policy.filter_map(|((_, class), row)| {
        let others = others(tables, *class, address.is_ipv4());
        (!others.is_empty()).then(|| RowView {
            address,
            direction: direction.to_string(),
            others,
            tcp: ports(tables, row.tcp, by),
            udp: ports(tables, row.udp, by),
            sctp: ports(tables, row.sctp, by),
            other: other(row, by),
        })
    });
    views.collect()
}

/// Prefixes of a class that can be the other end of an address of this family.
fn others(tables: &PolicyTables, class: ClassId, is_ipv4: bool) -> Vec<String> {
    if class == ClassId::base(is_ipv4) {
        return vec!["every other address".to_owned()];
    }
    let of_class = tables
        .classes
        .iter()
        .filter(|(net, of)| **of == class && net.addr().is_ipv4() == is_ipv4);
    let names = of_class.map(|(net, _)| match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    });
    names.collect()
}

fn other(row: &RuleRow, by: &dyn Fn(Outcome) -> String) -> PortsView {
    PortsView {
        ports: "*".to_owned(),
        allowed: row.other.allowed,
        by: by(row.other),
    }
}

fn ports(tables: &PolicyTables, cell: Cell, by: &dyn Fn(Outcome) -> String) -> Vec<PortsView> {
    let view = |ports: String, outcome: Outcome| PortsView {
        ports,
        allowed: outcome.allowed,
        by: by(outcome),
    };
    let id = match cell {
        Cell::All(outcome) => return vec![view("*".to_owned(), outcome)],
        Cell::ByPort(id) => id,
    };
    let Some(table) = tables.ports.get(&id) else {
        return Vec::new();
    };
    let ends = table.0.iter().skip(1).map(|(next, _)| next - 1);
    let ranges = table.0.iter().zip(ends.chain([u16::MAX]));
    let named = ranges.map(|((first, outcome), last)| match *first == last {
        true => view(first.to_string(), *outcome),
        false => view(format!("{first}-{last}"), *outcome),
    });
    named.collect()
}
