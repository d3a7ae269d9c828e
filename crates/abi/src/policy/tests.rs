use std::collections::HashMap;
use std::net::IpAddr;
use std::vec::Vec;

use super::*;

#[derive(Default)]
struct Map {
    pods: HashMap<Address, PolicyPod>,
    classes: HashMap<Address, u64>,
    pairs: HashMap<PairKey, PairRow>,
    ports: Vec<PortNode>,
}

impl PolicyTables for Map {
    fn pod(&self, address: &Address) -> Option<&PolicyPod> {
        self.pods.get(address)
    }
    fn class(&self, address: &Address) -> Option<u64> {
        self.classes.get(address).copied()
    }
    fn pair(&self, key: &PairKey) -> Option<&PairRow> {
        self.pairs.get(key)
    }
    fn port_node(&self, node: u32) -> Option<&PortNode> {
        self.ports.get(node as usize)
    }
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn all(outcome: Outcome) -> PairRow {
    PairRow {
        cells: [outcome; 4],
    }
}

/// A pod with ingress 100: class 50 may at TCP 80, everybody else may not.
fn map() -> Map {
    let mut map = Map::default();
    let pod = PolicyPod::new(100, NO_POLICY);
    map.pods.insert(address("10.0.0.1"), pod);
    map.pods.insert(address("fd00::1"), pod);
    map.classes.insert(address("10.0.0.2"), 50);
    map.classes.insert(address("fd00::2"), 50);
    for class in [CLASS_V4, CLASS_V6] {
        let key = PairKey { policy: 100, class };
        map.pairs.insert(key, all(Outcome::deny(9)));
    }
    let (yes, no) = (Outcome::allow(8), Outcome::deny(9));
    map.ports
        .push(PortNode::new(&[(0, no), (80, yes), (81, no)]));
    let mut row = all(no);
    row.cells[0] = Outcome::see_node(0);
    let key = PairKey {
        policy: 100,
        class: 50,
    };
    map.pairs.insert(key, row);
    map
}

fn ask(
    map: &Map,
    direction: Direction,
    pod: &str,
    other: &str,
    (protocol, port): (u8, u16),
) -> Outcome {
    let question = Question {
        pod: address(pod),
        direction,
        other: address(other),
        protocol,
        port: Port::from_host(port),
    };
    judge(map, &question)
}

#[test]
fn outcomes() {
    let map = map();
    use Direction::{Egress, Ingress};
    for (pod, peer, stranger) in [
        ("10.0.0.1", "10.0.0.2", "10.0.0.3"),
        ("fd00::1", "fd00::2", "fd00::3"),
    ] {
        for (direction, other, to, expect) in [
            (Ingress, peer, (IPPROTO_TCP, 79), Outcome::deny(9)),
            (Ingress, peer, (IPPROTO_TCP, 80), Outcome::allow(8)),
            (Ingress, peer, (IPPROTO_TCP, 81), Outcome::deny(9)),
            (Ingress, peer, (IPPROTO_TCP, 65535), Outcome::deny(9)),
            (Ingress, peer, (IPPROTO_UDP, 80), Outcome::deny(9)),
            (Ingress, peer, (1, 0), Outcome::deny(9)),
            (Ingress, stranger, (IPPROTO_TCP, 80), Outcome::deny(9)),
            (Ingress, pod, (IPPROTO_TCP, 1), Outcome::allow(BY_ITSELF)),
            (
                Egress,
                stranger,
                (IPPROTO_TCP, 1),
                Outcome::allow(BY_DEFAULT),
            ),
        ] {
            assert_eq!(
                ask(&map, direction, pod, other, to),
                expect,
                "{direction:?} {other} {to:?}"
            );
        }
    }
}

#[test]
fn what_is_missing_lets_nothing_pass() {
    let ingress = |map: &Map, other| {
        ask(
            map,
            Direction::Ingress,
            "10.0.0.1",
            other,
            (IPPROTO_TCP, 80),
        )
    };
    let damage = Outcome::deny(BY_DAMAGE);
    let mut without_ports = map();
    without_ports.ports.clear();
    assert_eq!(ingress(&without_ports, "10.0.0.2"), damage);
    let mut without_base = map();
    without_base.pairs.remove(&PairKey {
        policy: 100,
        class: CLASS_V4,
    });
    assert_eq!(ingress(&without_base, "10.0.0.3"), damage);
    let mut circle = map();
    circle.ports[0] = PortNode::new(&[(0, Outcome::see_node(0))]);
    assert_eq!(ingress(&circle, "10.0.0.2"), damage);
    assert_eq!(ingress(&Map::default(), "10.0.0.2"), damage);
    assert!(!damage.is_allowed() && damage.by() == BY_DAMAGE);
}

#[test]
fn a_full_node() {
    let ranges: Vec<_> = (0..8_u16)
        .map(|i| (i * 10, Outcome::allow(i.into())))
        .collect();
    let node = PortNode::new(&ranges);
    for (port, by) in [(0, 0), (9, 0), (10, 1), (69, 6), (70, 7), (65535, 7)] {
        assert_eq!(node.at(port).by(), by, "{port}");
    }
}
