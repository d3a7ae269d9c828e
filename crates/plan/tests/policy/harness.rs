//! The planner beside the reference.

use std::net::IpAddr;

use ripstop_model::{Pod, Protocol};
use ripstop_plan::policy::{Attribution, Direction, PolicyChange, PolicyPlanner, PolicyTables};

use crate::reference::{Packet, World};

pub(crate) const PROTOCOLS: [Option<Protocol>; 4] = [
    Some(Protocol::Tcp),
    Some(Protocol::Udp),
    Some(Protocol::Sctp),
    None,
];

/// A planner that has been told of nothing but the finished world.
pub(crate) fn from_scratch(world: &World) -> PolicyTables {
    let mut planner = PolicyPlanner::new(&world.own_node);
    for pod in world.pods.values() {
        tell_pod(&mut planner, world, pod);
    }
    for (name, addresses) in &world.names {
        planner.set_name(name, addresses.clone());
    }
    for policy in world.cluster.values() {
        planner.upsert_cluster_policy(policy.clone());
    }
    for policy in world.policies.values() {
        planner.upsert_policy(policy.clone());
    }
    for node in world.nodes.values() {
        planner.upsert_node(node.clone());
    }
    for namespace in world.namespaces.values() {
        planner.upsert_namespace(namespace.clone());
    }
    let mut tables = PolicyTables::default();
    settle(&mut planner, &mut tables);
    tables
}

pub(crate) fn tell_pod(planner: &mut PolicyPlanner, world: &World, pod: &Pod) {
    planner.upsert_pod(pod.clone());
    if is_local(world, pod) {
        planner.add_local_pod(&pod.key, Some(&pod.uid), pod.addresses.to_vec());
    } else {
        planner.remove_local_pod(&pod.key);
    }
}

pub(crate) fn is_local(world: &World, pod: &Pod) -> bool {
    pod.node.as_deref() == Some(&world.own_node) && !pod.host_network && !pod.ended
}

/// Takes changes until there are none, and checks each on its way in.
pub(crate) fn settle(planner: &mut PolicyPlanner, tables: &mut PolicyTables) -> Vec<PolicyChange> {
    let mut changes = Vec::new();
    while !planner.is_settled() || changes.is_empty() {
        changes.push(planner.take_change(tables));
    }
    changes
}

/// All packets that tell the policies of `world` apart.
pub(crate) fn packets<'a>(world: &'a World, others: &[IpAddr], ports: &[u16]) -> Vec<Packet<'a>> {
    let mut packets = Vec::new();
    for pod in world.pods.values().filter(|pod| is_local(world, pod)) {
        for &address in &pod.addresses {
            for other in others.iter().filter(|o| o.is_ipv4() == address.is_ipv4()) {
                for direction in [Direction::Ingress, Direction::Egress] {
                    for protocol in PROTOCOLS {
                        packets.extend(ports.iter().map(|port| Packet {
                            pod,
                            address,
                            direction,
                            other: *other,
                            protocol,
                            port: *port,
                        }));
                    }
                }
            }
        }
    }
    packets
}

pub(crate) fn by_rows(tables: &PolicyTables, packet: Packet<'_>) -> (bool, Attribution) {
    let protocol = packet.protocol.map_or(1, |protocol| protocol as u8);
    let outcome = tables
        .judge(
            packet.address,
            packet.direction,
            packet.other,
            protocol,
            packet.port,
        )
        .unwrap_or_else(|| panic!("no row decides {packet:?}"));
    (outcome.allowed, tables.attribution(outcome))
}
