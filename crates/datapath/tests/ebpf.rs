//! Real sockets between namespaces, through a real engine. Needs root.

#[macro_use]
mod common;
mod adoption;
mod counted;
mod full;
mod host_ports;
mod nftables;
mod policies;
mod pressure;
mod renumbered;
mod services;

use std::net::SocketAddr;

use adoption::pins;
use common::{Node, Pod, ip, net, node, nodes, service, unrestricted};
use policies::rows::{INGRESS, NOBODY, Rows};
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::{Datapath, Deny, PolicySettings};
use ripstop_model::Protocol;
use ripstop_netlink::{Netlink, traffic};
use ripstop_plan::{Change, Tables};
use services::{says, says_in_every_way};

const SERVICES: [&str; 2] = ["10.96.0.5:80", "[fd00:96::5]:80"];

#[test]
fn pods_of_a_node_reach_each_other_past_the_stack() {
    let mut node: Node = node("local");
    let (a, b) = (node.add_pod(), node.add_pod());
    // Who would forward does not.
    node.set("net/ipv4/conf/all/forwarding", "0");
    node.set("net/ipv6/conf/all/forwarding", "0");
    reaches(&a, &b);
}

/// Each way of asking leads from `a` to `b`, and as many bytes as one wants.
fn reaches(a: &Pod, b: &Pod) {
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in b.at(8080).into_iter().enumerate() {
        let says = says(b, a, family);
        assert_eq!(client.tcp(to), format!("{says} peer {to}"));
        assert_eq!(client.udp(to), format!("{says} from {to}"));
        assert_eq!(client.bulk(to, 4 << 20), (4 << 20).to_string());
    }
}

#[test]
fn a_check_sees_what_is_missing_and_changes_nothing() {
    let mut node: Node = node("check");
    let made = node.add_pod();
    let pod = made.local.clone();
    let check = |node: &mut Node| node.run(|engine| engine.check_pod(&pod)).unwrap();
    assert_eq!(check(&mut node), None);
    node.run(|engine| engine.remove_pod(&pod)).unwrap();
    for _ in 0..2 {
        let missing = check(&mut node).expect("something is missing");
        assert!(
            missing.starts_with("the datapath has no endpoint"),
            "{missing}"
        );
    }
    node.run(|engine| engine.add_pod(&pod)).unwrap();
    assert_eq!(check(&mut node), None);
}

#[test]
fn nodes_and_pods_reach_each_other() {
    let mut node: Node = node("node");
    let pod = node.add_pod();
    let (mut on_node, mut in_pod) = (node.process(), pod.process());
    in_pod.serve(8080);
    on_node.serve(9090);
    for family in 0..2 {
        let to = pod.at(8080)[family];
        assert!(on_node.tcp(to).starts_with(&pod.local.container_id), "{to}");
        let to = SocketAddr::new(node.addresses[family], 9090);
        assert!(
            in_pod
                .tcp(to)
                .contains(&format!("sees {}", pod.addresses[family])),
            "{to}"
        );
    }
}

#[test]
fn pods_of_two_nodes_reach_each_other_without_nat() {
    let [mut one, mut other]: [Node; 2] = nodes("cross");
    one.route_to(&other, 1500);
    other.route_to(&one, 1500);
    let (a, b) = (one.add_pod(), other.add_pod());
    for node in [&one, &other] {
        node.set("net/ipv4/conf/all/forwarding", "0");
    }
    reaches(&a, &b);
}

#[test]
fn the_stack_tells_what_does_not_fit() {
    let [mut one, mut other]: [Node; 2] = nodes("mtu");
    one.route_to(&other, 1400);
    other.route_to(&one, 1400);
    let (a, b) = (one.add_pod(), other.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for to in b.at(8080) {
        assert_eq!(client.bulk(to, 1 << 20), (1 << 20).to_string());
    }
}

#[test]
fn services_lead_to_their_pods() {
    let mut node: Node = node("service");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        node.serve(to, Protocol::Tcp, &[b.at(8080)[family]]);
        node.serve(to, Protocol::Udp, &[b.at(8080)[family]]);
        let says = says(&b, &a, family);
        says_in_every_way(&mut client, to, &says);
        // The pod itself, through its own service.
        assert!(server.tcp(to).ends_with(&format!("peer {to}")));
        // The node's processes, too.
        assert!(node.process().tcp(to).starts_with(&b.local.container_id));
    }
    // An IPv6 socket that talks IPv4.
    let mapped = "[::ffff:10.96.0.5]:80";
    let says = says(&b, &a, 0);
    says_in_every_way(&mut client, mapped, &says);
    // Another port of the service's address is no service.
    assert!(client.tcp("10.96.0.5:81").starts_with("error"));
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let mut node: Node = node("empty");
    let pod = node.add_pod();
    let mut client = pod.process();
    for to in SERVICES {
        node.serve(to, Protocol::Tcp, &[]);
        node.serve(to, Protocol::Udp, &[]);
        assert_eq!(client.tcp(to), "error: ConnectionRefused");
        assert_eq!(client.udp(to), "error: ConnectionRefused");
        assert_eq!(client.udp_connected(to), "error: ConnectionRefused");
    }
    let drops = node.run(|engine| engine.status()).drops;
    assert!(drops.contains(&("no_backends", 6)), "{drops:?}");
}

#[test]
fn endpoints_come_and_go() {
    let mut node: Node = node("endpoints");
    let (client, b, c) = (node.add_pod(), node.add_pod(), node.add_pod());
    let (mut server_b, mut server_c) = (b.process(), c.process());
    server_b.serve(8080);
    server_c.serve(8080);
    let mut client = client.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        let both = [b.at(8080)[family], c.at(8080)[family]];
        node.serve(to, Protocol::Tcp, &both);
        node.serve(to, Protocol::Udp, &both);
        let hits = |client: &mut common::process::Process, pod: &Pod| {
            let answers = (0..64).map(|_| client.tcp(to));
            answers
                .filter(|a| a.starts_with(&format!("{} sees", pod.local.container_id)))
                .count()
        };
        // All on one side: once in 2^63 times.
        assert!((1..64).contains(&hits(&mut client, &b)));
        // Datagrams of one socket stay together.
        let same = client.udp_thrice(to);
        let words: Vec<&str> = same.split(' ').collect();
        assert!(words[0] == words[3] && words[3] == words[6], "{same}");
        while client.hold(to) != to {}
        node.serve(to, Protocol::Tcp, &both[1..]);
        assert_eq!(hits(&mut client, &c), 64);
        // Whoever is connected stays.
        assert_eq!(client.held(), "still there");
    }
    let tables = node.run(|engine| engine.status()).tables;
    // One TCP and two UDP backends of each family.
    assert!(tables.contains(&("backends", 6, 256)), "{tables:?}");
}

#[test]
fn a_removed_pod_is_gone() {
    let mut node: Node = node("removed");
    let (a, b) = (node.add_pod(), node.add_pod());
    node.run(|engine| engine.remove_pod(&b.local)).unwrap();
    node.run(|engine| engine.remove_pod(&b.local)).unwrap();
    let tables = node.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("endpoints", 2, 1024)), "{tables:?}");
    assert!(
        !pins(&node)
            .iter()
            .any(|pin| pin.0.contains(&b.local.host_ifname))
    );
    // By the stack: the link is still there.
    let mut server = b.process();
    server.serve(8080);
    assert!(
        a.process()
            .tcp(b.at(8080)[0])
            .starts_with(&b.local.container_id)
    );
}

/// Whose packets the host's stack sends to the pod.
#[test]
fn who_is_denied_behind_the_stack_is_told() {
    let [mut one, other] = services::nodes::<EbpfEngine>("behind");
    let pod = one.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let mut rows = Rows::default();
    rows.pod(&pod, [INGRESS, NOBODY]);
    one.run(|engine| engine.apply(&rows.change())).unwrap();
    // As by a link that is no uplink.
    one.run(|_| {
        let mut netlink = Netlink::new().unwrap();
        let links = netlink.links().unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
        let gone = traffic::detach(eth0.index, traffic::Hook::Ingress);
        netlink.execute([gone]).unwrap();
    });
    let mut outside = other.process();
    for to in pod.at(8080) {
        assert!(outside.is_dropped(to));
    }
    let reject = PolicySettings {
        deny: Deny::Reject,
        observe: false,
    };
    one.run(|engine| engine.set_policy_settings(reject))
        .unwrap();
    for to in pod.at(8080) {
        assert_eq!(outside.tcp(to), "error: ConnectionRefused");
        // "Administratively prohibited", as each family has it.
        let told = ["error: HostUnreachable", "error: PermissionDenied"];
        assert!(told.contains(&outside.udp_connected(to).as_str()));
    }
}

#[test]
fn a_route_that_goes_is_removed() {
    let [mut one, other]: [Node; 2] = nodes("routes");
    one.route_to(&other, 1500);
    let gone = ripstop_datapath::ResolvedRoute {
        prefix: net("10.244.2.0/24"),
        next_hop: None,
    };
    one.run(|engine| engine.apply_routes(&[gone])).unwrap();
    let tables = one.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("routes", 1, 16_384)), "{tables:?}");
}

/// Around the number that a frontend names in its own row.
#[test]
fn few_and_many_backends() {
    let mut node: Node = node("many");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    (8080..8092).for_each(|port| server.serve(port));
    let mut client = a.process();
    let pods = [a.local.clone(), b.local.clone()];
    for (family, to) in SERVICES.into_iter().enumerate() {
        let mut desired = Tables::default();
        desired.apply(&unrestricted(&pods));
        for count in [1, 8, 9, 12, 9, 8, 7, 12, 1, 0, 9] {
            let there: Vec<_> = (8080..8080 + count)
                .map(|port| b.at(port)[family])
                .collect();
            let change = service(to, Protocol::Tcp, &there);
            node.run(|engine| engine.apply(&change)).unwrap();
            desired.apply(&change);
            let states = node.run(|engine| engine.services()).unwrap();
            assert_eq!(states[0].backends.len(), there.len());
            for _ in 0..count {
                let answer = client.tcp(to);
                assert!(answer.contains(" sees "), "{count}: {answer}");
            }
            // Another engine reads the same.
            node.open();
            let drift = node.run(|engine| engine.audit(&desired, &pods)).unwrap();
            assert_eq!(drift.repaired, [""; 0], "{count}");
        }
        let mut gone = Change::default();
        let frontends = desired.frontends.into_keys();
        gone.frontends.extend(frontends.map(|key| (key, None)));
        node.run(|engine| engine.apply(&gone)).unwrap();
    }
    let tables = node.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("backends", 0, 256)), "{tables:?}");
}

/// A way that nobody here knows to be narrow: those on it say so, and what they
/// say has to reach who sends.
#[test]
fn clients_and_pods_learn_how_narrow_the_way_is() {
    let [mut one, mut other] = services::nodes::<EbpfEngine>("narrow");
    // Behind a router, which the other node is here.
    let far = other.make_pod(Vec::new());
    let mut server = far.process();
    server.serve(8080);
    let near = one.add_pod();
    let (mut outside, mut inside) = (other.process(), near.process());
    for (family, world) in ["192.0.2.7", "2001:db8::7"].map(ip).into_iter().enumerate() {
        // From outside through a port of the node, and on to the other node.
        other.way_by_pod(&far, far.addresses[family], 1300);
        let to = SocketAddr::new(one.addresses[family], 30080);
        one.serve(&to.to_string(), Protocol::Tcp, &[far.at(8080)[family]]);
        assert_eq!(outside.bulk(to, 1 << 20), (1 << 20).to_string());
        // From a pod to outside, by the node's address.
        far.add_address(world);
        other.way_by_pod(&far, world, 1300);
        one.way_out(&other, world);
        let to = SocketAddr::new(world, 8080);
        assert_eq!(inside.bulk(to, 1 << 20), (1 << 20).to_string());
    }
}

#[test]
fn the_nodes_datagram_sockets_let_go_of_backends_that_are_gone() {
    let mut node: Node = node("stranded");
    let (b, c) = (node.add_pod(), node.add_pod());
    let (mut server_b, mut server_c) = (b.process(), c.process());
    server_b.serve(8080);
    server_c.serve(8080);
    let mapped = "[::ffff:10.96.0.5]:80";
    for to in [SERVICES[0], SERVICES[1], mapped] {
        let family = usize::from(to == SERVICES[1]);
        let frontend = if to == mapped { SERVICES[0] } else { to };
        let [at_b, at_c] = [&b, &c].map(|pod| pod.at(8080)[family]);
        node.serve(frontend, Protocol::Udp, &[at_b]);
        let (mut client, mut direct) = (node.process(), node.process());
        let by = |pod: &Pod| format!("{} sees", pod.local.container_id);
        assert!(client.hold_udp(to).starts_with(&by(&b)));
        // Not led by anybody: none of the engine's business.
        assert!(direct.hold_udp(at_b).starts_with(&by(&b)));
        // One more: who has one stays.
        node.serve(frontend, Protocol::Udp, &[at_b, at_c]);
        assert!(client.held_udp().starts_with(&by(&b)));
        node.serve(frontend, Protocol::Udp, &[at_c]);
        assert_eq!(client.held_udp(), "error: disconnected");
        assert!(client.hold_udp(to).starts_with(&by(&c)));
        // The service goes, with its last backend.
        node.serve(frontend, Protocol::Udp, &[]);
        assert_eq!(client.held_udp(), "error: disconnected");
        assert_eq!(client.hold_udp(to), "error: ConnectionRefused");
        assert!(direct.held_udp().starts_with(&by(&b)));
    }
}
