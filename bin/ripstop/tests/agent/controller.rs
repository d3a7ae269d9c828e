//! Ranges for nodes, by one of several controllers.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use crate::node::{TestNode, eventually, read};

/// Ranges of the nodes that have any; no two overlap.
fn ranges(node: &TestNode) -> BTreeSet<IpNet> {
    let nodes = node.client().list::<Node>(None);
    let specs = nodes.iter().filter_map(|node| node.spec.as_ref());
    let all = specs.flat_map(|spec| spec.pod_cidrs.clone().unwrap_or_default());
    let all: Vec<IpNet> = all.map(|range| range.parse().unwrap()).collect();
    for (index, one) in all.iter().enumerate() {
        let others = all[index + 1..].iter();
        let shared = others
            .clone()
            .find(|other| one.contains(*other) || other.contains(one));
        assert_eq!(shared, None, "{one} in {all:?}");
    }
    all.into_iter().collect()
}

#[test]
fn one_controller_gives_ranges_and_another_goes_on() {
    let node = TestNode::new("controller");
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        node.create_node(name, 20 + index as u8, &[]);
    }
    let holder = || {
        let lease = node
            .client()
            .get::<Lease>(Some("kube-system"), "ripstop-controller");
        lease?.spec.as_ref()?.holder_identity.clone()
    };
    let first = node.start_controller("first");
    eventually("the first leads", || holder().as_deref() == Some("first"));
    let second = node.start_controller("second");
    // With those that node1 has had before.
    eventually("every node has a range of each family", || {
        ranges(&node).len() == 8
    });
    node.create_node("d", 30, &[]);
    eventually("so has one that comes later", || ranges(&node).len() == 10);
    assert_eq!(read(&second.log), "", "the second waits");
    let before = ranges(&node);
    drop(first);
    node.create_node("e", 31, &[]);
    eventually("the second leads", || holder().as_deref() == Some("second"));
    eventually("and goes on", || ranges(&node).len() == 12);
    assert!(ranges(&node).is_superset(&before), "what was given stays");
    let lease = node
        .client()
        .get::<Lease>(Some("kube-system"), "ripstop-controller");
    let transitions = lease.unwrap().spec.clone().unwrap().lease_transitions;
    assert_eq!(transitions, Some(1));
    assert!(second.end().success());
    assert_eq!(holder(), None, "the next one need not wait");
}
