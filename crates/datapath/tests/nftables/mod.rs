//! The nftables engine: real sockets, through the kernel's NAT.

use std::net::SocketAddr;

use crate::common::{Node, Pod, net, service, unrestricted};
use crate::host_ports::host_port;
use crate::policies::parts::Blocks;
use crate::policies::rows::{CLASS, EGRESS, INGRESS, Rows, any, port};
use crate::policies::serving;
use crate::services::{SERVICES, node, nodes, ranges, says, says_in_every_way};
use ripstop_datapath::nftables::NftEngine;
use ripstop_datapath::{Datapath, EngineStatus, Error};
use ripstop_model::Protocol;
use ripstop_netlink::conntrack::{Connection, Conntrack};
use ripstop_plan::policy::Direction;
use ripstop_plan::{FrontendKind, Outside, Tables};

#[test]
fn services_lead_to_their_pods() {
    let mut node = node::<NftEngine>("service");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        node.serve(to, Protocol::Tcp, &[b.at(8080)[family]]);
        node.serve(to, Protocol::Udp, &[b.at(8080)[family]]);
        let says = says(&b, &a, family);
        says_in_every_way(&mut client, to, &says);
        assert_eq!(client.bulk(to, 4 << 20), (4 << 20).to_string());
        let states = node.run(|engine| engine.services()).unwrap();
        let mut states = states
            .iter()
            .filter(|state| state.frontend.protocol == Protocol::Tcp);
        let bytes = states.next_back().and_then(|state| state.backends[0].bytes);
        // There and back, and what is around it.
        assert!((8 << 20..10 << 20).contains(&bytes.unwrap()), "{bytes:?}");
        // The pod itself, through its own service, as the node.
        let node_says = format!("{} sees {}", b.local.container_id, node.addresses[family]);
        assert_eq!(server.tcp(to), format!("{node_says} peer {to}"));
        assert_eq!(server.udp(to), format!("{node_says} from {to}"));
        // The node's processes, too.
        let mut here = node.process();
        assert_eq!(here.tcp(to), format!("{node_says} peer {to}"));
        assert_eq!(here.udp(to), format!("{node_says} from {to}"));
    }
    // An IPv6 socket that talks IPv4.
    let mapped = "[::ffff:10.96.0.5]:80";
    assert_eq!(
        client.tcp(mapped),
        format!("{} peer {mapped}", says(&b, &a, 0))
    );
}

#[test]
fn nobody_there_is_refused_at_once() {
    let mut node = node::<NftEngine>("empty");
    let pod = node.add_pod();
    let mut client = pod.process();
    for to in SERVICES {
        node.serve(to, Protocol::Tcp, &[]);
        node.serve(to, Protocol::Udp, &[]);
        assert_eq!(client.tcp(to), "error: ConnectionRefused");
        assert_eq!(client.udp_connected(to), "error: ConnectionRefused");
        assert_eq!(node.process().tcp(to), "error: ConnectionRefused");
        assert_eq!(node.process().udp_connected(to), "error: ConnectionRefused");
    }
    // Addresses of the range that are no service's, and other ports of one.
    for to in ["10.96.7.7:80", "[fd00:96::77]:80", "10.96.0.5:81"] {
        assert_eq!(client.tcp(to), "error: ConnectionRefused");
        assert_eq!(client.udp_connected(to), "error: ConnectionRefused");
        assert_eq!(node.process().tcp(to), "error: ConnectionRefused");
        assert_eq!(node.process().udp_connected(to), "error: ConnectionRefused");
    }
    assert_eq!(node.run(|engine| engine.flows()).unwrap(), []);
    let states = node.run(|engine| engine.services()).unwrap();
    let refused: Vec<_> = states.iter().map(|state| state.refused).collect();
    assert_eq!(refused, [2, 2, 2, 2]);
    // One socket of the node, before and after there is somebody.
    let _server = serving(&pod);
    for (family, to) in SERVICES.into_iter().enumerate() {
        let mut here = node.process();
        here.send_from(20_000);
        assert_eq!(here.udp_connected(to), "error: ConnectionRefused");
        node.serve(to, Protocol::Udp, &[pod.at(8080)[family]]);
        assert!(!here.udp_connected(to).starts_with("error"));
    }
}

#[test]
fn endpoints_come_and_go() {
    let mut node = node::<NftEngine>("endpoints");
    let (client, b, c) = (node.add_pod(), node.add_pod(), node.add_pod());
    let (mut server_b, mut server_c) = (b.process(), c.process());
    server_b.serve(8080);
    server_c.serve(8080);
    let mut client = client.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        let both = [b.at(8080)[family], c.at(8080)[family]];
        node.serve(to, Protocol::Tcp, &both);
        let hits = |client: &mut crate::common::process::Process, pod: &Pod| {
            let answers = (0..64).map(|_| client.tcp(to));
            answers
                .filter(|a| a.starts_with(&format!("{} sees", pod.local.container_id)))
                .count()
        };
        // All on one side: once in 2^63 times.
        let first = hits(&mut client, &b);
        assert!((1..64).contains(&first));
        let states = node.run(|engine| engine.services()).unwrap();
        let state = states.iter().find(|s| s.backends.len() == 2).unwrap();
        let counts: Vec<_> = state.backends.iter().map(|b| b.connections).collect();
        assert_eq!(counts, [first as u64, 64 - first as u64]);
        while client.hold(to) != to {}
        node.serve(to, Protocol::Tcp, &both[1..]);
        assert_eq!(hits(&mut client, &c), 64);
        // Whoever is connected stays.
        assert_eq!(client.held(), "still there");
    }
}

#[test]
fn host_ports_lead_to_their_pod() {
    let [mut one, mut other] = nodes::<NftEngine>("hostport");
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| host_port(None, 80, protocol));
    let (pod, neighbour) = (one.add_pod_with_ports(ports.into()), one.add_pod());
    let far_pod = other.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let name = &pod.local.container_id;
    for family in 0..2 {
        let to = SocketAddr::new(one.addresses[family], 80);
        for (mut client, address) in [
            (other.process(), other.addresses[family]),
            (far_pod.process(), far_pod.addresses[family]),
            (neighbour.process(), neighbour.addresses[family]),
        ] {
            let sees = format!("{name} sees {address}");
            assert_eq!(client.tcp(to), format!("{sees} peer {to}"));
            assert_eq!(client.udp(to), format!("{sees} from {to}"));
        }
        let mut here = one.process();
        assert!(here.tcp(to).starts_with(name));
        // IPv6 loopback cannot leave the node's own network namespace.
        if family == 0 {
            assert!(here.tcp("127.0.0.1:80").ends_with("peer 127.0.0.1:80"));
            assert!(here.udp("127.0.0.1:80").ends_with("from 127.0.0.1:80"));
        }
        let loopback = ["127.0.0.1:80", "[::1]:80"][family];
        assert_eq!(
            neighbour.process().tcp(loopback),
            "error: ConnectionRefused"
        );
    }
    // The port is taken; and a service with the same port waits behind it.
    let third = one.make_pod(vec![host_port(None, 80, Protocol::Tcp)]);
    let error = one.run(|engine| engine.add_pod(&third.local)).unwrap_err();
    assert!(matches!(&error, Error::PortTaken { .. }), "{error}");
    let to = SocketAddr::new(one.addresses[0], 80);
    one.serve(&to.to_string(), Protocol::Tcp, &[]);
    assert!(other.process().tcp(to).starts_with(name));
    one.run(|engine| engine.remove_pod(&pod.local)).unwrap();
    let services = one.run(|engine| engine.services()).unwrap();
    assert_eq!(services.len(), 1);
    assert_eq!(other.process().tcp(to), "error: ConnectionRefused");
    assert_eq!(one.process().tcp(to), "error: ConnectionRefused");
}

#[test]
fn a_new_engine_adopts_what_is_there() {
    let mut node = node::<NftEngine>("adopt");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    let mut desired = Tables::default();
    desired.apply(&ranges());
    for (to, backend) in SERVICES.into_iter().zip(b.at(8080)) {
        node.serve(to, Protocol::Tcp, &[backend]);
        desired.apply(&service(to, Protocol::Tcp, &[backend]));
    }
    assert_eq!(client.hold(SERVICES[0]), SERVICES[0]);
    let before = node.table();
    assert!(before.contains("ClusterIP test/service"), "{before}");
    // No agent: all goes on.
    node.engine = None;
    assert_eq!(client.held(), "still there");
    node.open();
    assert!(node.run(|engine| engine.status()).adopted);
    for pod in [&a, &b] {
        node.run(|engine| engine.add_pod(&pod.local)).unwrap();
    }
    let known = [a.local.clone(), b.local.clone()];
    desired.apply(&unrestricted(&known));
    let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
    assert_eq!(drift.repaired, [""; 0]);
    assert_eq!(node.table(), before);
    assert_eq!(client.held(), "still there");
    // Only one of the services, and one of the pods, is wanted.
    let mut fewer = Tables::default();
    fewer.apply(&ranges());
    fewer.apply(&unrestricted(&known));
    fewer.apply(&service(SERVICES[1], Protocol::Tcp, &[b.at(8080)[1]]));
    let drift = node
        .run(|engine| engine.audit(&fewer, &known[1..]))
        .unwrap();
    assert_eq!(
        drift.repaired,
        [
            format!("endpoint {} (removed)", a.addresses[0]),
            format!("endpoint {} (removed)", a.addresses[1]),
            format!("frontend {}/TCP (removed)", SERVICES[0]),
        ]
    );
}

#[test]
fn an_audit_repairs_what_others_broke() {
    let mut node = node::<NftEngine>("audit");
    let pod = node.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let mut desired = Tables::default();
    desired.apply(&ranges());
    for (to, backend) in SERVICES.into_iter().zip(pod.at(8080)) {
        node.serve(to, Protocol::Tcp, &[backend]);
        desired.apply(&service(to, Protocol::Tcp, &[backend]));
    }
    let there = [pod.at(8080)[0], pod.at(8081)[0]];
    let mut spread = service("192.0.2.1:80", Protocol::Tcp, &there);
    for row in spread.frontends.values_mut().flatten() {
        row.kind = FrontendKind::LoadBalancer;
    }
    node.run(|engine| engine.apply(&spread)).unwrap();
    desired.apply(&spread);
    let known = [pod.local.clone()];
    desired.apply(&unrestricted(&known));
    let whole = node.table();
    for (damage, repaired) in [
        ("flush map inet ripstop slots4", "frontend 10.96.0.5:80/TCP"),
        (
            "flush map inet ripstop spread4",
            "frontend 192.0.2.1:80/TCP",
        ),
        (
            "flush map inet ripstop services6",
            "frontend [fd00:96::5]:80/TCP",
        ),
        ("flush chain inet ripstop ip-1", "chain ip-1"),
        ("flush set inet ripstop pods4", "endpoint 10.244.1.2"),
        ("flush chain inet ripstop prerouting", "table ripstop"),
        (
            "add element inet ripstop preserved4 { 10.0.0.1 . tcp . 80 }",
            "frontend 10.0.0.1:80/TCP (removed)",
        ),
        ("add chain inet ripstop stray", "chain stray (removed)"),
        ("flush ruleset", "table ripstop"),
    ] {
        node.nft(damage);
        let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
        assert!(
            drift.repaired.iter().any(|line| line == repaired),
            "{damage}: {drift:?}"
        );
        let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
        assert_eq!(drift.repaired, [""; 0], "{damage}");
        assert_eq!(node.table(), whole, "{damage}");
        for to in SERVICES {
            assert!(
                node.process().tcp(to).starts_with(&pod.local.container_id),
                "{damage}"
            );
        }
    }
}

#[test]
fn what_others_did_to_many_blocks_is_found_in_parts() {
    let mut blocks = Blocks::<NftEngine>::new("damage");
    blocks.audit(|_| {});
    let range = "20.0.7.4-20.0.7.255";
    for damage in [
        format!("delete element inet ripstop policy-blocks4 {{ {range} }}"),
        // A shorter one, a longer one.
        format!(
            "delete element inet ripstop policy-blocks4 {{ {range} }};
             add element inet ripstop policy-blocks4 {{ 20.0.7.4-20.0.7.99 : 0x00000000 . 0x00000000 . 0x00000007 }}"
        ),
        // One where none should be.
        "add element inet ripstop policy-blocks4 { 99.0.0.0/8 : 0x00000000 . 0x00000000 . 0x00000007 }".into(),
        "add element inet ripstop policy-blocks6 { 3001:db8::/32 : 0x00000000 . 0x00000000 . 0x00000007 }".into(),
        "flush map inet ripstop policy-blocks4".into(),
        "flush map inet ripstop policy-rules4".into(),
        "flush set inet ripstop policy-ports6".into(),
        "flush map inet ripstop ingress-sides4".into(),
        "delete table inet ripstop".into(),
    ] {
        blocks.node.nft(&damage);
        blocks.is_told_and_repaired(&damage);
    }
    // Chains are no rows.
    let damage = "flush chain inet ripstop forward";
    blocks.node.nft(damage);
    blocks.is_repaired(damage);
}

#[test]
fn nothing_of_others_is_touched_and_nothing_of_ours_stays() {
    let mut node = node::<NftEngine>("others");
    node.nft("add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }; add rule inet theirs c counter");
    let pod = node.add_pod();
    node.serve(SERVICES[0], Protocol::Tcp, &[pod.at(8080)[0]]);
    assert!(node.table().contains("test/service"));
    let engine = node.engine.take().unwrap();
    node.inside(|| Box::new(engine).dismantle()).unwrap();
    let left = node.nft("list ruleset");
    assert!(
        left.contains("table inet theirs") && !left.contains("ripstop"),
        "{left}"
    );
    assert_eq!(node.get("net/ipv4/conf/all/route_localnet"), "0");
}

/// Whoever runs a firewall on the node lists its rules, ours among them.
#[test]
fn administrators_can_list_the_rules() {
    let mut node = node::<NftEngine>("list");
    let pods = [node.add_pod(), node.add_pod()];
    let host_port = host_port(None, 81, Protocol::Udp);
    let _with_port = node.add_pod_with_ports(vec![host_port]);
    for (family, to) in SERVICES.into_iter().enumerate() {
        let there = pods.each_ref().map(|pod| pod.at(8080)[family]);
        let local = vec![ripstop_plan::Backend {
            address: there[0].ip(),
            port: 8080,
        }];
        let local = Outside::Local(local.into());
        // Every class that changes what chains are made of.
        for (port, outside) in (1000..).zip([Outside::Cluster, local]) {
            for (port, affinity) in (port..).step_by(10).zip([None, Some(60)]) {
                for (port, open) in (port..).step_by(100).zip([true, false]) {
                    for (port, backends) in (port..).step_by(1000).zip([&there[..], &[]]) {
                        let to = SocketAddr::new(to.parse::<SocketAddr>().unwrap().ip(), port);
                        let mut change = service(&to.to_string(), Protocol::Tcp, backends);
                        for row in change.frontends.values_mut().flatten() {
                            row.kind = FrontendKind::LoadBalancer;
                            row.outside = outside.clone();
                            row.affinity = affinity;
                            if !open {
                                row.source_ranges =
                                    vec![["10.0.0.0/8", "fd00::/8"][family].parse().unwrap()];
                            }
                        }
                        node.run(|engine| engine.apply(&change)).unwrap();
                    }
                }
            }
        }
    }
    let mut rows = Rows::default();
    rows.pod(&pods[1], [INGRESS, EGRESS])
        .class(
            [
                net("10.0.0.0/8"),
                net("10.0.0.0/9"),
                net("10.1.2.3/32"),
                net("fd00::/8"),
                net("fd00::1/128"),
            ],
            CLASS,
        )
        .rule(INGRESS, CLASS, port(Protocol::Tcp, 8080, 9090))
        .rule(EGRESS, CLASS, any());
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    let mut client = pods[0].process();
    let mut server = pods[1].process();
    server.serve(8080);
    client.tcp("10.96.0.5:1010");
    assert!(client.is_silent(pods[1].at(8080)[0]));
    let listed = node.nft("list ruleset");
    assert!(listed.contains("LoadBalancer test/service"), "{listed}");
    let json = node.nft("-j list ruleset");
    assert!(json.contains("LoadBalancer test/service"), "{json}");
    // As many rules as there are.
    let rules = |text: &str, word: &str| text.matches(word).count();
    let ours = node.table();
    let made = rules(&ours, "RuleRead");
    assert_eq!(rules(&json, "{\"rule\":"), made);
}

/// Without a connection there is no telling an answer from a question.
#[test]
fn packets_without_a_connection_are_judged_by_themselves() {
    let mut node = node::<NftEngine>("notrack");
    let (client, pod, open) = (node.add_pod(), node.add_pod(), node.add_pod());
    let (mut server, mut open_server) = (pod.process(), open.process());
    server.serve(8080);
    open_server.serve(8080);
    let mut process = client.process();
    let mut rows = Rows::default();
    rows.pod(&pod, [INGRESS, EGRESS])
        .class(client.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, any());
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    for to in pod.at(8080) {
        assert!(!process.udp(to).starts_with("error"));
    }
    // Another one's rule takes all connections away.
    node.nft(
        "add table inet theirs; \
         add chain inet theirs c { type filter hook prerouting priority raw - 10; }; \
         add rule inet theirs c notrack",
    );
    for family in 0..2 {
        // The question passes, the answer is a question of its own.
        assert!(process.is_silent(pod.at(8080)[family]));
        assert!(!process.udp(open.at(8080)[family]).starts_with("error"));
        let denials = node.run(|engine| engine.denials()).unwrap();
        let answers = denials.rows.iter().filter(|row| {
            (row.pod, row.other) == (pod.addresses[family], client.addresses[family])
                && row.direction == Direction::Egress
        });
        assert_eq!(answers.count(), 1);
    }
}

#[test]
fn errors_belong_to_what_they_are_about() {
    let mut node = node::<NftEngine>("errors");
    let (client, pod) = (node.add_pod(), node.add_pod());
    let mut process = client.process();
    let mut rows = Rows::default();
    // Nothing but UDP to this port, and nothing back.
    rows.pod(&pod, [INGRESS, EGRESS])
        .class(client.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, port(Protocol::Udp, 8080, 8080));
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    for to in pod.at(8080) {
        // Nobody serves: the pod says so.
        assert_eq!(process.udp_connected(to), "error: ConnectionRefused");
    }
    let closed = pod.at(8081)[0];
    assert!(process.is_silent(closed));
}

#[test]
fn firewalls_of_others_are_seen() {
    let node = node::<NftEngine>("firewall");
    let seen = || {
        node.inside(ripstop_datapath::nftables::foreign_drops)
            .unwrap()
    };
    node.nft("add table inet open; add chain inet open c { type filter hook forward priority 0; }");
    assert_eq!(seen(), [""; 0]);
    node.nft(
        "add table ip filter; \
         add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
         add chain ip filter INPUT { type filter hook input priority 0; policy drop; }",
    );
    assert_eq!(seen(), ["chain FORWARD of table ip filter"]);
}

/// Connection tracking's own limit. It is the machine's, which a test leaves as it
/// is: with a small one (`nf_conntrack_max`) this one fills the table.
#[test]
fn a_full_table_of_connections_is_told() {
    let mut node = node::<NftEngine>("full");
    let (a, b) = (node.add_pod(), node.add_pod());
    let _server = serving(&b);
    let mut client = a.process();
    let status = |node: &mut Node<NftEngine>| node.run(|engine| engine.status());
    let used = |status: &EngineStatus| {
        let mut tables = status.tables.iter();
        tables.find(|table| table.0 == "connections").copied()
    };
    let (_, before, limit) = used(&status(&mut node)).unwrap();
    assert!(limit > 0);
    let to = b.at(8080)[0];
    assert_eq!(client.hold(to), to.to_string());
    let (_, after, _) = used(&status(&mut node)).unwrap();
    assert!(after > before, "{before} {after}");
    if limit > 200 {
        eprintln!("skipped: a table of {limit} connections is not filled (nf_conntrack_max)");
        return;
    }
    let ports = 20_000..20_000 + u16::try_from(limit).unwrap() + 8;
    let refused = ports.filter(|port| {
        client.send_from(*port);
        client.udp(to).starts_with("error")
    });
    assert!(refused.count() > 0);
    let drops = status(&mut node).drops;
    let full = drops
        .iter()
        .find(|(reason, _)| *reason == "connections_full");
    assert!(full.is_some_and(|(_, count)| *count > 0), "{drops:?}");
}

/// Else the kernel would choose any port for them, and so one of a flow that another
/// engine leads meanwhile.
#[test]
fn the_node_s_own_connections_keep_to_the_ports_of_sockets() {
    let mut node = node::<NftEngine>("own");
    let pod = node.add_pod();
    let _server = serving(&pod);
    let mut process = node.process();
    for (family, service) in SERVICES.into_iter().enumerate() {
        let to = pod.at(8080)[family];
        node.serve(service, Protocol::Udp, &[to]);
        for port in 40_000..40_012 {
            process.send_from(port);
            // Of one port, by a service and without it: one gets another port.
            for to in [service.to_owned(), to.to_string()] {
                let said = process.udp(&to);
                assert!(said.starts_with(&pod.local.container_id), "{to}: {said}");
            }
        }
        let ports = node.run(|_| {
            let of_node = |connection: &Connection| connection.original.destination == to;
            let own = Conntrack::new().unwrap().list(of_node).unwrap();
            let ports = own.iter().map(|own| {
                let (asked, given) = (own.original.source, own.reply.destination);
                (asked.port(), given.port())
            });
            ports.collect::<Vec<_>>()
        });
        assert_eq!(ports.len(), 12);
        for (asked, given) in ports {
            assert_ne!(asked, given);
            // A new namespace's `ip_local_port_range`.
            assert!((32_768..61_000).contains(&given), "{asked} {given}");
        }
    }
}
