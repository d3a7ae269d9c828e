//! What a cluster does for its nodes: a range of pod addresses, taints that
//! follow their state, and the end of pods whose node is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::controller::Controller;
use super::object::{Change, Key, Object};
use super::plan::{Event, Plan, Removal};
use super::pod;
use super::scheduler::taints;
use super::world::World;

const COMPONENT: &str = "node-controller";
/// Prefix lengths of a node's ranges (`--node-cidr-mask-size-ipv4`, `-ipv6`).
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// Gives every node a range of each of the cluster's.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// Ranges of all pods, one for each family.
    pub(crate) cluster_cidrs: Vec<IpNet>,
}

impl Controller for Nodes {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        let latest = change.latest();
        if !matches!(latest, Object::Node(_)) {
            return;
        }
        add(latest.key());
        if change.new.is_none() {
            // Its range is free again.
            let waiting = world
                .objects
                .nodes
                .iter()
                .filter(|node| pod_cidrs(node).is_empty());
            waiting.for_each(|node| add(Key::of(&node.metadata)));
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = world.objects.nodes.get(key) else {
            end_pods_of(world, &key.name, &mut plan);
            return plan;
        };
        if node.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let mut changed = Node::clone(node);
        let spec = changed.spec.get_or_insert_default();
        if pod_cidrs(node).is_empty() && !self.cluster_cidrs.is_empty() {
            match self.free_cidrs(world) {
                Some(cidrs) => {
                    let cidrs: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
                    spec.pod_cidr = cidrs.first().cloned();
                    spec.pod_cidrs = Some(cidrs);
                }
                None => {
                    let message = "Node has no range of pod addresses: the cluster's are used up";
                    plan.record(Event::warning(
                        COMPONENT,
                        &**node,
                        "CIDRNotAvailable",
                        message,
                    ));
                }
            }
        }
        let taints = timed(taints::effective(node), node, now);
        spec.taints = (!taints.is_empty()).then_some(taints);
        if changed != **node {
            plan.update(changed);
        }
        plan
    }
}

/// Keeps the times at which taints were added.
fn timed(mut taints: Vec<Taint>, node: &Node, now: Timestamp) -> Vec<Taint> {
    let known = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    for taint in &mut taints {
        let same = known
            .iter()
            .find(|one| one.key == taint.key && one.effect == taint.effect);
        match same {
            Some(same) => taint.time_added.clone_from(&same.time_added),
            None => taint.time_added = Some(Time(now)),
        }
    }
    taints
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let listed = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    listed.filter_map(|cidr| cidr.parse().ok()).collect()
}

impl Nodes {
    /// The lowest free range of every family; the same index in each, so that
    /// one can be told from the other.
    fn free_cidrs(&self, world: &World) -> Option<Vec<IpNet>> {
        let used: BTreeSet<IpNet> = world
            .objects
            .nodes
            .iter()
            .flat_map(|node| pod_cidrs(node))
            .collect();
        // The lowest is given last: node 1 then has 10.244.1.0/24.
        (1..=u32::from(u16::MAX)).chain([0]).find_map(|index| {
            let ranges: Option<Vec<IpNet>> = self
                .cluster_cidrs
                .iter()
                .map(|cluster| range(cluster, index))
                .collect();
            ranges.filter(|ranges| !ranges.iter().any(|range| overlaps(range, &used)))
        })
    }
}

fn overlaps(range: &IpNet, used: &BTreeSet<IpNet>) -> bool {
    used.iter()
        .any(|other| other.contains(range) || range.contains(other))
}

/// The `index`-th node range of the cluster's, if it has so many.
fn range(cluster: &IpNet, index: u32) -> Option<IpNet> {
    let shift = |prefix: u8, width: u8| -> Option<(u32, u8)> {
        let bits = prefix.checked_sub(cluster.prefix_len())?;
        (bits >= 32 || index < 1 << bits).then_some((u32::from(width - prefix), prefix))
    };
    match cluster {
        IpNet::V4(net) => {
            let prefix = NODE_PREFIX_V4.max(net.prefix_len());
            let (shift, prefix) = shift(prefix, 32)?;
            let base =
                u32::from(net.network()).checked_add(index.checked_shl(shift).unwrap_or(0))?;
            IpNet::new(std::net::Ipv4Addr::from(base).into(), prefix).ok()
        }
        IpNet::V6(net) => {
            let prefix = NODE_PREFIX_V6.max(net.prefix_len());
            let (shift, prefix) = shift(prefix, 128)?;
            let offset = u128::from(index).checked_shl(shift).unwrap_or(0);
            let base = u128::from(net.network()).checked_add(offset)?;
            IpNet::new(std::net::Ipv6Addr::from(base).into(), prefix).ok()
        }
    }
}

/// Nobody else can end them: their node loop is gone with the node.
fn end_pods_of(world: &World, node: &str, plan: &mut Plan) {
    let load = world.loads.of(node);
    for key in load.into_iter().flat_map(|load| &load.pods) {
        let pod: Option<&Arc<Pod>> = world.objects.pods.get(key);
        if let Some(pod) = pod.filter(|pod| pod::node_name(pod) == Some(node)) {
            plan.remove(&Object::Pod(pod.clone()), Removal::AtOnce);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_by_index() {
        for (cluster, index, expected) in [
            ("10.244.0.0/16", 0, Some("10.244.0.0/24")),
            ("10.244.0.0/16", 255, Some("10.244.255.0/24")),
            ("10.244.0.0/16", 256, None),
            ("10.244.7.0/25", 0, Some("10.244.7.0/25")),
            ("10.244.7.0/25", 1, None),
            ("fd00:244::/48", 3, Some("fd00:244:0:3::/64")),
            ("fd00:244::/48", 65_536, None),
            ("fd00::/8", 3, Some("fd00:0:0:3::/64")),
        ] {
            let range = range(&cluster.parse().unwrap(), index);
            assert_eq!(
                range.map(|range| range.to_string()).as_deref(),
                expected,
                "{cluster} {index}"
            );
        }
    }

    fn world(nodes: &[&str]) -> World {
        let mut world = World::default();
        for node in nodes {
            let node: Node = serde_saphyr::from_str(node).unwrap();
            world.put(node.into());
        }
        world
    }

    #[test]
    fn a_node_gets_the_lowest_free_range_of_each_family() {
        let nodes = Nodes {
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:244::/48".parse().unwrap(),
            ],
        };
        let world = world(&[
            "{metadata: {name: a}, spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, 'fd00:244:0:1::/64']}}",
            "{metadata: {name: b}, spec: {podCIDR: 10.244.3.0/24}}",
        ]);
        let free = nodes.free_cidrs(&world).unwrap();
        assert_eq!(
            free,
            [
                "10.244.2.0/24".parse().unwrap(),
                "fd00:244:0:2::/64".parse::<IpNet>().unwrap()
            ]
        );
    }

    #[test]
    fn when_ranges_are_used_up_the_node_says_so() {
        let nodes = Nodes {
            cluster_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        };
        let world = world(&[
            "{metadata: {name: a}, spec: {podCIDRs: [10.244.0.0/24]}}",
            "{metadata: {name: b}}",
        ]);
        let plan = nodes.decide(&world, &Key::new("", "b"), Timestamp::UNIX_EPOCH);
        let is_event = |action: &super::super::plan::Action| matches!(action, super::super::plan::Action::Record(event) if event.reason == "CIDRNotAvailable");
        assert!(plan.actions.iter().any(is_event), "{plan:?}");
    }
}
