//! The rows as the kernel programs read them.

use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_abi as abi;

use super::id::{ClassId, PolicyId, PortsId};
use super::rows::{Cell, Outcome, PodPolicies, PortTable, RuleRow};

/// A pod's row.
pub fn pod(policies: PodPolicies) -> abi::PolicyPod {
    abi::PolicyPod {
        ingress: policies.ingress.number(),
        egress: policies.egress.number(),
    }
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
        tcp: cell(row.tcp),
        udp: cell(row.udp),
        sctp: cell(row.sctp),
        other: outcome(row.other),
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
