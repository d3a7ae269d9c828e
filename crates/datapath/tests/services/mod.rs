//! What services promise beside ClusterIP, under every engine, with real sockets
//! between namespaces and packets that no socket hook saw. Needs root.

use std::net::SocketAddr;

use crate::common::process::Process;
use crate::common::{Engine, Node, Pod, ip, net, service};
use ripstop_model::Protocol;
use ripstop_plan::{Backend, Backends, Change, FrontendKind, FrontendRow, Outside, Range, Tables};

pub(crate) const SERVICES: [&str; 2] = ["10.96.0.5:80", "[fd00:96::5]:80"];

/// What every cluster has.
pub(crate) fn ranges() -> Change {
    let mut change = Change::default();
    for (range, kind) in [
        ("10.244.0.0/16", Range::Pods),
        ("fd00:244::/32", Range::Pods),
        ("10.96.0.0/16", Range::Services),
        ("fd00:96::/112", Range::Services),
        ("172.30.1.11/32", Range::Node),
        ("172.30.1.12/32", Range::Node),
        ("fd00:30:1::b/128", Range::Node),
        ("fd00:30:1::c/128", Range::Node),
    ] {
        change.ranges.insert(net(range), Some(kind));
    }
    change
}

fn prepared<E: Engine>(node: &mut Node<E>) {
    node.run(|engine| engine.apply(&ranges())).unwrap();
    node.default_routes();
}

pub(crate) fn node<E: Engine>(test: &str) -> Node<E> {
    let mut node = crate::common::node(&format!("{}-{test}", E::NAME));
    prepared(&mut node);
    node
}

pub(crate) fn nodes<E: Engine>(test: &str) -> [Node<E>; 2] {
    let mut nodes: [Node<E>; 2] = crate::common::nodes(&format!("{}-{test}", E::NAME));
    nodes.iter_mut().for_each(prepared);
    let [one, other] = &mut nodes;
    one.route_to(other, 1500);
    other.route_to(one, 1500);
    nodes
}

pub(crate) fn says(pod: &Pod, client: &Pod, family: usize) -> String {
    format!(
        "{} sees {}",
        pod.local.container_id, client.addresses[family]
    )
}

/// A connection, a datagram and a connected socket's datagram are each answered by
/// who is to answer, as from where they were sent.
pub(crate) fn says_in_every_way(client: &mut Process, to: &str, says: &str) {
    assert_eq!(client.tcp(to), format!("{says} peer {to}"));
    assert_eq!(client.udp(to), format!("{says} from {to}"));
    let both = format!("{says} from {to} peer {to}");
    assert_eq!(client.udp_connected(to), both);
}

fn backend(to: SocketAddr) -> Backend {
    Backend {
        address: to.ip(),
        port: to.port(),
    }
}

/// A change of one row, of a NodePort and the like.
fn row(to: SocketAddr, protocol: Protocol, backends: &[SocketAddr], outside: Outside) -> Change {
    let mut change = service(&to.to_string(), protocol, backends);
    for row in change.frontends.values_mut().flatten() {
        row.kind = FrontendKind::NodePort;
        row.outside = outside.clone();
    }
    change
}

fn node_ports_for_everybody<E: Engine>() {
    let [mut one, mut other] = nodes::<E>("nodeport");
    let (near, far) = (one.add_pod(), other.add_pod());
    let (mut server, mut far_server) = (near.process(), far.process());
    server.serve(8080);
    far_server.serve(8080);
    for family in 0..2 {
        let to = SocketAddr::new(one.addresses[family], 30080);
        let loopback = SocketAddr::new(["127.0.0.1", "::1"].map(ip)[family], 30080);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for to in [to, loopback] {
                let there = [far.at(8080)[family]];
                let change = row(to, protocol, &there, Outside::Cluster);
                one.run(|engine| engine.apply(&change)).unwrap();
            }
        }
        let far_says = |who| format!("{} sees {who}", far.local.container_id);
        // From outside, as the node: so that answers come back this way.
        let as_node = far_says(one.addresses[family]);
        let mut outside = other.process();
        assert_eq!(outside.tcp(to), format!("{as_node} peer {to}"));
        assert_eq!(outside.udp(to), format!("{as_node} from {to}"));
        assert_eq!(outside.bulk(to, 4 << 20), (4 << 20).to_string());
        // From a pod, as that pod.
        let as_pod = far_says(near.addresses[family]);
        assert_eq!(server.tcp(to), format!("{as_pod} peer {to}"));
        // From the node itself.
        let mut here = one.process();
        assert_eq!(here.tcp(to), format!("{as_node} peer {to}"));
        if family == 0 {
            assert_eq!(here.tcp(loopback), format!("{as_node} peer {loopback}"));
            assert_eq!(here.udp(loopback), format!("{as_node} from {loopback}"));
        }
        assert_eq!(server.tcp(loopback), "error: ConnectionRefused");
        // Clients keep their address, and get what is here.
        let local = Outside::Local(vec![backend(near.at(8080)[family])].into());
        let change = row(to, Protocol::Tcp, &[far.at(8080)[family]], local);
        one.run(|engine| engine.apply(&change)).unwrap();
        let sees = format!(
            "{} sees {}",
            near.local.container_id, other.addresses[family]
        );
        assert_eq!(outside.tcp(to), format!("{sees} peer {to}"));
        assert_eq!(here.tcp(to), format!("{as_node} peer {to}"));
        // Nobody is here: dropped, for others to be tried. But not those inside.
        let nobody = Outside::Local(Backends::default());
        let change = row(to, Protocol::Tcp, &[far.at(8080)[family]], nobody);
        one.run(|engine| engine.apply(&change)).unwrap();
        assert!(outside.is_dropped(to));
        assert_eq!(here.tcp(to), format!("{as_node} peer {to}"));
        // Nobody anywhere: refused.
        let change = row(to, Protocol::Tcp, &[], Outside::Local(Backends::default()));
        one.run(|engine| engine.apply(&change)).unwrap();
        assert_eq!(outside.tcp(to), "error: ConnectionRefused");
    }
}

fn clients_from_outside_are_spread_and_stay<E: Engine>() {
    let [mut one, other] = nodes::<E>("spread");
    let pods = [one.add_pod(), one.add_pod(), one.add_pod()];
    let mut servers = pods.each_ref().map(Pod::process);
    servers.iter_mut().for_each(|server| server.serve(8080));
    for family in 0..2 {
        let to = SocketAddr::new(one.addresses[family], 30080);
        let there = pods.each_ref().map(|pod| pod.at(8080)[family]);
        let change = row(to, Protocol::Tcp, &there, Outside::Cluster);
        one.run(|engine| engine.apply(&change)).unwrap();
        let mut outside = other.process();
        for _ in 0..64 {
            assert!(outside.tcp(to).contains(" sees "));
        }
        let states = one.run(|engine| engine.services()).unwrap();
        let state = states
            .iter()
            .find(|s| s.frontend.address == to.ip())
            .unwrap();
        let counts: Vec<_> = state.backends.iter().map(|b| b.connections).collect();
        assert_eq!(counts.iter().sum::<u64>(), 64);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        // With affinity all go to one, from outside and from inside.
        let mut change = change;
        for row in change.frontends.values_mut().flatten() {
            row.affinity = Some(60);
        }
        one.run(|engine| engine.apply(&change)).unwrap();
        for process in [&mut outside, &mut one.process()] {
            let first = process.tcp(to);
            assert!(first.contains(" sees "), "{first}");
            for _ in 0..16 {
                assert_eq!(process.tcp(to), first);
            }
        }
        let held = |node: &mut Node<E>| -> u64 {
            let states = node.run(|engine| engine.services()).unwrap();
            states.iter().map(|state| state.affinities_held).sum()
        };
        assert_eq!(held(&mut one), 2);
        // One that held a backend that is gone gets another, and holds that.
        let first = outside.tcp(to);
        let left: Vec<_> = pods
            .iter()
            .filter(|pod| !first.starts_with(&format!("{} ", pod.local.container_id)))
            .map(|pod| pod.at(8080)[family])
            .collect();
        assert_eq!(left.len(), 2);
        let mut change = row(to, Protocol::Tcp, &left, Outside::Cluster);
        for row in change.frontends.values_mut().flatten() {
            row.affinity = Some(60);
        }
        one.run(|engine| engine.apply(&change)).unwrap();
        let second = outside.tcp(to);
        assert_ne!(second, first);
        for _ in 0..16 {
            assert_eq!(outside.tcp(to), second);
        }
        // Nothing is left of a service that is gone.
        let mut gone = Change::default();
        gone.frontends
            .extend(change.frontends.into_keys().map(|key| (key, None)));
        one.run(|engine| engine.apply(&gone)).unwrap();
        assert_eq!(held(&mut one), 0);
        assert_eq!(one.run(|engine| engine.services()).unwrap(), []);
    }
}

fn source_ranges_are_for_their_members_alone<E: Engine>() {
    let [mut one, other] = nodes::<E>("ranges");
    let pod = one.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    for family in 0..2 {
        let to = SocketAddr::new(["192.0.2.1", "2001:db8::1"].map(ip)[family], 80);
        one.way_in(&other, to.ip());
        let mut change = row(to, Protocol::Tcp, &[pod.at(8080)[family]], Outside::Cluster);
        for (ranges, reaches) in [
            (
                [
                    ["172.30.1.12/32", "10.0.0.0/8"],
                    ["fd00:30:1::c/128", "fc00::/16"],
                ],
                true,
            ),
            (
                [
                    ["172.30.1.13/32", "10.0.0.0/8"],
                    ["fd00:30:1::d/128", "fc00::/16"],
                ],
                false,
            ),
        ] {
            let mut ranges = ranges[family].map(net).to_vec();
            ranges.sort();
            for row in change.frontends.values_mut().flatten() {
                row.kind = FrontendKind::LoadBalancer;
                row.source_ranges.clone_from(&ranges);
            }
            one.run(|engine| engine.apply(&change)).unwrap();
            if reaches {
                assert!(other.process().tcp(to).contains(" sees "));
            } else {
                assert!(other.process().is_dropped(to));
            }
            let states = one.run(|engine| engine.services()).unwrap();
            let state = states.iter().find(|s| s.frontend.address == to.ip());
            assert_eq!(state.unwrap().source_ranges, ranges);
        }
    }
}

fn what_leaves_the_cluster_is_the_node_s<E: Engine>() {
    let [mut one, other] = nodes::<E>("egress");
    let pod = one.add_pod();
    let mut client = pod.process();
    let mut outside = other.process();
    outside.serve(9090);
    for family in 0..2 {
        // A node is in a range: pods are seen as they are.
        let node = SocketAddr::new(other.addresses[family], 9090);
        let sees = |who| format!("{} sees {who}", other.name());
        let as_pod = sees(pod.addresses[family]);
        assert_eq!(client.tcp(node), format!("{as_pod} peer {node}"));
        assert_eq!(client.udp(node), format!("{as_pod} from {node}"));
        let elsewhere = ["198.51.100.7", "2001:db8::7"].map(ip)[family];
        other.add_address(elsewhere);
        one.way_out(&other, elsewhere);
        let elsewhere = SocketAddr::new(elsewhere, 9090);
        let as_node = sees(one.addresses[family]);
        assert_eq!(client.tcp(elsewhere), format!("{as_node} peer {elsewhere}"));
        // Excluded: as itself again.
        let mut change = Change::default();
        let excluded = ["198.51.100.0/24", "2001:db8::/32"].map(net)[family];
        change.ranges.insert(excluded, Some(Range::Excluded));
        one.run(|engine| engine.apply(&change)).unwrap();
        assert_eq!(client.tcp(elsewhere), format!("{as_pod} peer {elsewhere}"));
    }
}

fn datagrams_find_another_backend<E: Engine>() {
    let mut node = node::<E>("udp");
    let (a, b, c) = (node.add_pod(), node.add_pod(), node.add_pod());
    let (mut server_b, mut server_c) = (b.process(), c.process());
    server_b.serve(8080);
    server_c.serve(8080);
    let mut client = a.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        let says = |server: &Pod| says(server, &a, family);
        node.serve(to, Protocol::Udp, &[b.at(8080)[family]]);
        assert_eq!(client.hold_udp(to), says(&b));
        assert_eq!(client.held_udp(), says(&b));
        // The same socket, and so the same flow.
        node.serve(to, Protocol::Udp, &[c.at(8080)[family]]);
        assert_eq!(client.held_udp(), says(&c));
        // Also the last one takes its flows along.
        node.serve(to, Protocol::Udp, &[]);
        assert_eq!(client.held_udp(), "error: ConnectionRefused");
        node.serve(to, Protocol::Udp, &[b.at(8080)[family]]);
        assert_eq!(client.held_udp(), says(&b));
    }
}

/// For [`FrontendRow`]s of all kinds.
fn any_row(seed: u64) -> FrontendRow {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut row = FrontendRow::new(ripstop_model::ObjectKey::new("ns", format!("s{}", next(9))));
    let mut some = |count: u64| -> Backends {
        let list = (0..next(count + 1)).map(|_| Backend {
            address: ip(&format!("10.244.1.{}", next(20) + 1)),
            port: 80,
        });
        list.collect()
    };
    row.backends = some(9);
    let local = some(3);
    match next(4) {
        0 => row.kind = FrontendKind::NodePort,
        1 => row.kind = FrontendKind::ExternalIp,
        2 => row.kind = FrontendKind::LoadBalancer,
        _ => {}
    }
    if next(3) == 0 && !(row.backends.is_empty() && local.is_empty()) {
        row.outside = Outside::Local(local);
    }
    if next(3) == 0 {
        row.affinity = Some(next(3) as u32 * 100 + 1);
    }
    if next(4) == 0 {
        row.source_ranges = vec![net("10.0.0.0/8"), net("192.0.2.0/24")];
    }
    row
}

fn the_kernel_says_what_the_rows_say<E: Engine>() {
    let mut node = node::<E>("property");
    let mut desired = Tables::default();
    desired.apply(&ranges());
    for seed in 1..200 {
        let mut change = Change::default();
        for part in 0..seed % 5 {
            let seed = seed * 31 + part;
            let to = ripstop_plan::Frontend {
                address: ip(&format!("10.96.0.{}", seed % 7)),
                protocol: Protocol::Tcp,
                port: 80,
            };
            let row = (seed % 3 != 0).then(|| any_row(seed));
            change.frontends.insert(to, row);
        }
        node.run(|engine| engine.apply(&change)).unwrap();
        desired.apply(&change);
        let states = node.run(|engine| engine.services()).unwrap();
        assert_eq!(states.len(), desired.frontends.len());
        for (state, (frontend, row)) in states.iter().zip(&desired.frontends) {
            let backends = |list: &[ripstop_datapath::BackendState]| -> Vec<_> {
                list.iter().map(|state| state.backend).collect()
            };
            assert_eq!(state.frontend, *frontend);
            assert_eq!(backends(&state.backends), *row.backends);
            let outside = match &row.outside {
                Outside::Cluster => None,
                Outside::Local(local) => Some(local.to_vec()),
            };
            assert_eq!(state.outside.as_deref().map(backends), outside);
            assert_eq!(state.affinity, row.affinity);
            assert_eq!(state.source_ranges, row.source_ranges);
        }
        let drift = node.run(|engine| engine.audit(&desired, &[])).unwrap();
        assert_eq!(drift.repaired, [""; 0], "{seed}");
    }
}

in_both_engines!(
    node_ports_for_everybody,
    clients_from_outside_are_spread_and_stay,
    source_ranges_are_for_their_members_alone,
    what_leaves_the_cluster_is_the_node_s,
    datagrams_find_another_backend,
    the_kernel_says_what_the_rows_say,
);
