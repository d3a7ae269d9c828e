//! The rows as the kernel programs read them.

use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_abi as abi;

use super::id::{AttributionId, ClassId, PolicyId, PortsId};
use super::rows::{Cell, Outcome, PodPolicies, PortTable, RuleRow};

/// A pod's row.
pub fn pod(policies: PodPolicies) -> abi::PolicyPod {
    abi::PolicyPod::new(policies.ingress.number(), policies.egress.number())
}

/// Key of a class's prefix.
pub fn class_key(net: IpNet) -> abi::ClassKey {
    let before = if net.addr().is_ipv4() { 96 } else { 0 };
    abi::ClassKey {
        prefix_len: before + u32::from(net.prefix_len()),
        address: IpAddr::into(net.network()),
    }
}

/// Key of what a side says of a class.
pub fn pair_key((policy, class): (PolicyId, ClassId)) -> abi::PairKey {
    abi::PairKey {
        policy: policy.number(),
        class: class.number(),
    }
}

/// What a side says of a class. `root`: index of the first node of a port table.
pub fn pair_row(row: &RuleRow, root: impl Fn(PortsId) -> u32) -> abi::PairRow {
    let cell = |cell| match cell {
        Cell::All(one) => outcome(one),
        Cell::ByPort(id) => abi::Outcome::see_node(root(id)),
    };
    abi::PairRow {
        cells: [
            cell(row.tcp),
            cell(row.udp),
            cell(row.sctp),
            outcome(row.other),
        ],
    }
}

fn outcome(outcome: Outcome) -> abi::Outcome {
    match outcome.allowed {
        true => abi::Outcome::allow(outcome.by.number()),
        false => abi::Outcome::deny(outcome.by.number()),
    }
}

/// Levels of nodes above its ranges that a table needs, the ranges' own first.
fn levels(ranges: usize) -> impl Iterator<Item = usize> {
    let up = |below: &usize| (*below > 1).then(|| below.div_ceil(abi::PortNode::RANGES));
    let first = ranges.div_ceil(abi::PortNode::RANGES);
    std::iter::successors(Some(first), up)
}

/// Number of nodes of a port table.
pub fn port_nodes_count(table: &PortTable) -> usize {
    levels(table.0.len()).sum()
}

/// The nodes of a port table, its root first: they are to lie one after the
/// other, from index `root` on.
pub fn port_nodes(table: &PortTable, root: u32) -> Vec<abi::PortNode> {
    let sizes: Vec<_> = levels(table.0.len()).collect();
    let mut nodes: Vec<Vec<abi::PortNode>> = Vec::new();
    let mut ranges: Vec<_> = table
        .0
        .iter()
        .map(|(first, one)| (*first, outcome(*one)))
        .collect();
    for (level, size) in sizes.iter().enumerate() {
        let chunks = ranges.chunks(abi::PortNode::RANGES);
        nodes.push(chunks.clone().map(abi::PortNode::new).collect());
        // The levels above come before this one.
        let before: usize = sizes[level + 1..].iter().sum();
        debug_assert_eq!(nodes[level].len(), *size);
        let references = chunks.zip(before..).map(|(chunk, index)| {
            let index = root.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            (chunk[0].0, abi::Outcome::see_node(index))
        });
        ranges = references.collect();
    }
    nodes.into_iter().rev().flatten().collect()
}

/// A port table as its nodes say, and their number; `node` gives the one of an
/// index. `None` if they are damaged.
pub fn port_table(
    root: u32,
    node: impl Fn(u32) -> Option<abi::PortNode>,
) -> Option<(PortTable, u32)> {
    let mut ranges = Vec::new();
    let mut count = 0;
    // The index and from where on its ranges count.
    let mut open = vec![(root, 0)];
    while let Some((index, from)) = open.pop() {
        count += 1;
        if count > MOST_NODES {
            return None;
        }
        let found = node(index)?;
        // The last ones first: they are taken from the end.
        let mut below = Vec::new();
        for (position, (first, next)) in found.ranges().enumerate() {
            let first = if position == 0 { from } else { first };
            match next.node() {
                Some(index) => below.push((index, first)),
                None => ranges.push((first, read(next))),
            }
        }
        open.extend(below.into_iter().rev());
    }
    Some((PortTable(ranges), count))
}

/// More nodes than all ports need.
const MOST_NODES: u32 = 16_384;

/// An outcome as the kernel has it, that does not depend on the port.
fn read(outcome: abi::Outcome) -> Outcome {
    Outcome {
        allowed: outcome.is_allowed(),
        by: AttributionId::from_number(outcome.by()),
    }
}

/// A pod's row read back.
pub fn read_pod(row: abi::PolicyPod) -> PodPolicies {
    PodPolicies {
        ingress: PolicyId::from_number(row.side(abi::PolicyPod::INGRESS)),
        egress: PolicyId::from_number(row.side(abi::PolicyPod::EGRESS)),
    }
}

/// A pair's row read back. `ports`: the id of the table whose first node that is;
/// `None` if there is none.
pub fn read_pair(row: &abi::PairRow, ports: impl Fn(u32) -> Option<PortsId>) -> Option<RuleRow> {
    let cell = |outcome: abi::Outcome| match outcome.node() {
        Some(root) => ports(root).map(Cell::ByPort),
        None => Some(Cell::All(read(outcome))),
    };
    let [tcp, udp, sctp, other] = row.cells;
    Some(RuleRow {
        tcp: cell(tcp)?,
        udp: cell(udp)?,
        sctp: cell(sctp)?,
        other: read(other),
    })
}

/// A class's prefix read back; `None` if it is none.
pub fn class_net(key: abi::ClassKey) -> Option<IpNet> {
    let before = if key.address.is_v4() { 96 } else { 0 };
    let bits = key.prefix_len.checked_sub(before)?;
    IpNet::new(key.address.into(), u8::try_from(bits).ok()?).ok()
}
