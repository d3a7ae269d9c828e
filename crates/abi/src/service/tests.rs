use core::cell::Cell;
use std::collections::HashMap;

use super::*;

struct Node {
    frontends: HashMap<ServiceAddress, Frontend>,
    backends: HashMap<BackendKey, Backend>,
    node_netns: bool,
    random: Cell<u32>,
}

impl Services for Node {
    fn frontend(&self, address: &ServiceAddress) -> Option<Frontend> {
        self.frontends.get(address).copied()
    }
    fn backend(&self, key: &BackendKey) -> Option<Backend> {
        self.backends.get(key).copied()
    }
    fn in_node_netns(&self) -> bool {
        self.node_netns
    }
    fn random(&self) -> u32 {
        // Steps through the whole range, evenly.
        let next = self.random.get().wrapping_add(0x0100_0193);
        self.random.set(next);
        next
    }
}

fn address(text: &str, port: u16) -> ServiceAddress {
    let address: core::net::IpAddr = text.parse().unwrap();
    ServiceAddress::new(address.into(), Port::from_host(port), 6)
}

fn backend(text: &str, port: u16) -> Backend {
    let address: core::net::IpAddr = text.parse().unwrap();
    Backend::new(address.into(), Port::from_host(port))
}

/// One service with `count` backends, of either family.
fn node(count: u16, flags: u16) -> Node {
    Node {
        frontends: ["10.96.0.5", "fd00:96::5"]
            .map(|text| (address(text, 80), Frontend::new(7, count, flags)))
            .into(),
        backends: (0..count.into())
            .map(|slot| {
                (
                    BackendKey { service: 7, slot },
                    backend("10.244.0.2", slot as u16),
                )
            })
            .collect(),
        node_netns: false,
        random: Cell::new(0),
    }
}

#[test]
fn every_backend_gets_its_share() {
    let node = node(7, 0);
    let mut hits = [0; 7];
    for _ in 0..70_000 {
        let Choice::Backend { backend, .. } = choose(&node, &address("fd00:96::5", 80), None)
        else {
            panic!("no backend")
        };
        hits[usize::from(backend.port.host())] += 1;
    }
    assert!(
        hits.iter().all(|hits| (9_500..10_500).contains(hits)),
        "{hits:?}"
    );
}

#[test]
fn what_is_no_service_is_kept() {
    for other in [
        address("10.96.0.5", 81),
        address("10.96.0.6", 80),
        address("fd00:96::6", 80),
    ] {
        assert_eq!(choose(&node(1, 0), &other, None), Choice::Keep);
    }
}

#[test]
fn without_backends_it_refuses() {
    let refused = choose(&node(0, 0), &address("10.96.0.5", 80), None);
    assert_eq!(refused, Choice::Refuse(DropReason::NoBackends));
}

#[test]
fn a_missing_row_refuses() {
    let mut node = node(1, 0);
    node.backends.clear();
    let refused = choose(&node, &address("10.96.0.5", 80), None);
    assert_eq!(refused, Choice::Refuse(DropReason::BackendMissing));
}

#[test]
fn loopback_host_ports_are_the_nodes_own() {
    let mut node = node(1, FLAG_HOST_ONLY);
    assert_eq!(choose(&node, &address("10.96.0.5", 80), None), Choice::Keep);
    node.node_netns = true;
    assert!(matches!(
        choose(&node, &address("10.96.0.5", 80), None),
        Choice::Backend { service: 7, .. }
    ));
}

#[test]
fn datagrams_stay_with_their_backend_until_the_service_changes() {
    let mut node = node(100, 0);
    let frontend = address("10.96.0.5", 80);
    let last = SocketState {
        frontend,
        backend: backend("10.244.0.9", 9),
        service: 7,
        flags: SOCKET_UNCONNECTED,
    };
    let kept = Choice::Backend {
        service: 7,
        backend: last.backend,
    };
    assert_eq!(choose(&node, &frontend, Some(&last)), kept);
    let connected = SocketState {
        flags: SOCKET_CONNECTED,
        ..last
    };
    assert_ne!(choose(&node, &frontend, Some(&connected)), kept);
    assert_ne!(choose(&node, &address("fd00:96::5", 80), Some(&last)), kept);
    node.frontends.insert(frontend, Frontend::new(8, 0, 0));
    let refused = choose(&node, &frontend, Some(&last));
    assert_eq!(refused, Choice::Refuse(DropReason::NoBackends));
}

#[test]
fn answers_have_the_service_s_name() {
    let state = SocketState {
        frontend: address("10.96.0.5", 80),
        backend: backend("10.244.0.2", 8080),
        service: 7,
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
