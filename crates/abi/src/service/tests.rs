use std::vec;
use std::vec::Vec;

use super::*;
use crate::RouteKey;
use crate::test_packets::MemoryTables;

struct Process {
    node_netns: bool,
    client: u32,
}

impl Caller for Process {
    fn in_node_netns(&self) -> bool {
        self.node_netns
    }
    fn netns(&self) -> u64 {
        self.client.into()
    }
}

const POD: Process = Process {
    node_netns: false,
    client: 1,
};

fn address(text: &str, port: u16) -> ServiceAddress {
    let address: core::net::IpAddr = text.parse().unwrap();
    ServiceAddress::new(address.into(), Port::from_host(port), 6)
}

fn backend(text: &str, port: u16) -> Backend {
    let address: core::net::IpAddr = text.parse().unwrap();
    Backend::new(address.into(), Port::from_host(port))
}

/// One service with `count` backends, of either family.
fn node(count: u16, frontend: Frontend) -> MemoryTables {
    let backends: Vec<Backend> = (0..count).map(|n| backend("10.244.0.2", n)).collect();
    let mut node = MemoryTables::default();
    for text in ["10.96.0.5", "fd00:96::5"] {
        node.serve(address(text, 80), frontend, &backends);
    }
    node
}

fn plain(count: u16) -> MemoryTables {
    node(count, Frontend::new(7, count, 0))
}

fn port(choice: Choice) -> u16 {
    match choice {
        Choice::Backend(chosen) => chosen.backend.port.host(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_backend_gets_its_share() {
    for count in [1, 7, 8, 9, 70] {
        let node = plain(count);
        let mut hits: Vec<usize> = vec![0; count.into()];
        let each = 10_000;
        for _ in 0..usize::from(count) * each {
            let choice = choose(&node, &POD, &address("fd00:96::5", 80), None);
            hits[usize::from(port(choice))] += 1;
        }
        assert!(
            hits.iter().all(|hits| hits.abs_diff(each) < each / 10),
            "{hits:?}"
        );
        assert_eq!(
            node.connections.borrow().values().sum::<u64>(),
            (usize::from(count) * each) as u64
        );
    }
}

#[test]
fn what_is_no_service_is_kept() {
    for other in [
        address("10.96.0.5", 81),
        address("10.96.0.6", 80),
        address("fd00:96::6", 80),
    ] {
        assert_eq!(choose(&plain(1), &POD, &other, None), Choice::Keep);
    }
}

#[test]
fn what_is_no_service_of_a_service_range_is_refused() {
    let mut node = plain(1);
    let range = |text, prefix_len| RouteKey {
        prefix_len,
        address: address(text, 0).address,
    };
    node.ranges = vec![
        (range("10.96.0.0", 96 + 16), RANGE_SERVICES),
        (range("fd00:96::", 112), RANGE_SERVICES),
    ];
    for other in ["10.96.0.5", "10.96.77.6", "fd00:96::6"] {
        assert_eq!(
            choose(&node, &POD, &address(other, 81), None),
            Choice::Refuse(DropReason::NoService)
        );
    }
    let outside = address("10.97.0.5", 80);
    assert_eq!(choose(&node, &POD, &outside, None), Choice::Keep);
    let service = address("10.96.0.5", 80);
    assert_eq!(port(choose(&node, &POD, &service, None)), 0);
}

#[test]
fn without_backends_it_refuses() {
    let node = plain(0);
    let service = address("10.96.0.5", 80);
    let refused = choose(&node, &POD, &service, None);
    assert_eq!(refused, Choice::Refuse(DropReason::NoBackends));
    assert_eq!(node.refused.borrow().get(&service), Some(&1));
}

#[test]
fn a_missing_row_refuses() {
    let mut node = plain(1);
    node.backends.clear();
    let refused = choose(&node, &POD, &address("10.96.0.5", 80), None);
    assert_eq!(refused, Choice::Refuse(DropReason::BackendMissing));
}

#[test]
fn loopback_host_ports_are_the_nodes_own() {
    let service = address("10.96.0.5", 80);
    // Nor can it be seen here whether a pod is in the source ranges.
    for flag in [FLAG_HOST_ONLY, FLAG_RANGES] {
        let node = node(1, Frontend::new(7, 1, flag));
        assert_eq!(choose(&node, &POD, &service, None), Choice::Keep);
        let own = Process {
            node_netns: true,
            client: 0,
        };
        assert_eq!(port(choose(&node, &own, &service, None)), 0);
    }
}

#[test]
fn clients_keep_their_backend_for_a_time() {
    let service = address("10.96.0.5", 80);
    let mut node = node(100, Frontend::new(7, 100, 0).with_affinity(60));
    let ask = |node: &MemoryTables, client| {
        let caller = Process {
            node_netns: false,
            client,
        };
        port(choose(node, &caller, &service, None))
    };
    let first = ask(&node, 1);
    let other = (2..50).map(|client| ask(&node, client));
    assert!(other.filter(|other| *other == first).count() < 10);
    // Each connection counts as the last one.
    for _ in 0..4 {
        node.now.set(node.now.get() + 59);
        assert_eq!(ask(&node, 1), first);
    }
    // Another one, as it happens: there are a hundred.
    node.now.set(node.now.get() + 60);
    let second = ask(&node, 1);
    assert_ne!(second, first);
    // It goes when its backend goes, and only then.
    let id = u32::from(first) + 1;
    node.backends.remove(&BackendKey { set: 7, id });
    assert_eq!(ask(&node, 1), second);
    let id = u32::from(second) + 1;
    node.backends.remove(&BackendKey { set: 7, id });
    assert_ne!(ask(&node, 1), second);
}

#[test]
fn datagrams_stay_with_their_backend_while_it_is_there() {
    let mut node = plain(100);
    let frontend = address("10.96.0.5", 80);
    let last = SocketState {
        frontend,
        backend: backend("10.244.0.2", 9),
        set: 7,
        id: 10,
        flags: SOCKET_UNCONNECTED,
    };
    assert_eq!(port(choose(&node, &POD, &frontend, Some(&last))), 9);
    let connected = SocketState {
        flags: SOCKET_CONNECTED,
        ..last
    };
    assert_ne!(port(choose(&node, &POD, &frontend, Some(&connected))), 9);
    let other = address("fd00:96::5", 80);
    assert_ne!(port(choose(&node, &POD, &other, Some(&last))), 9);
    node.backends.remove(&BackendKey { set: 7, id: 10 });
    assert_ne!(port(choose(&node, &POD, &frontend, Some(&last))), 9);
    node.frontends.insert(frontend, Frontend::new(7, 0, 0));
    let refused = choose(&node, &POD, &frontend, Some(&last));
    assert_eq!(refused, Choice::Refuse(DropReason::NoBackends));
}

#[test]
fn answers_have_the_service_s_name() {
    let state = SocketState {
        frontend: address("10.96.0.5", 80),
        backend: backend("10.244.0.2", 8080),
        set: 7,
        id: 1,
        flags: SOCKET_CONNECTED,
    };
    let peer = |text, port| {
        let backend = backend(text, port);
        (backend.address, backend.port)
    };
    assert_eq!(
        original(&state, peer("10.244.0.2", 8080)),
        Some(peer("10.96.0.5", 80))
    );
    assert_eq!(original(&state, peer("10.244.0.2", 8081)), None);
    assert_eq!(original(&state, peer("10.244.0.3", 8080)), None);
    let gone = SocketState { flags: 0, ..state };
    assert_eq!(original(&gone, peer("10.244.0.2", 8080)), None);
}
