//! Real sockets between namespaces, through a real engine. Needs root.

#[macro_use]
mod common;
mod nftables;
mod policies;
mod pressure;
mod renumbered;
mod services;

use std::net::SocketAddr;
use std::path::Path;

use common::process::Process;
use common::{Node, Pod, ip, net, node, nodes, service, unrestricted};
use policies::rows::{CLASS, EGRESS, INGRESS, NOBODY, Rows, any, port};
use ripstop_datapath::ebpf::{EbpfEngine, Limits};
use ripstop_datapath::{Datapath, Deny, Error, PolicySettings};
use ripstop_model::{HostPort, Protocol};
use ripstop_netlink::{Netlink, traffic};
use ripstop_plan::policy::ClassId;
use ripstop_plan::{Change, Tables};
use services::says;

const SERVICES: [&str; 2] = ["10.96.0.5:80", "[fd00:96::5]:80"];

#[test]
fn pods_of_a_node_reach_each_other_past_the_stack() {
    let mut node: Node = node("local");
    let (a, b) = (node.add_pod(), node.add_pod());
    // Who would forward does not.
    node.set("net/ipv4/conf/all/forwarding", "0");
    node.set("net/ipv6/conf/all/forwarding", "0");
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in b.at(8080).into_iter().enumerate() {
        let says = says(&b, &a, family);
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
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in b.at(8080).into_iter().enumerate() {
        let says = says(&b, &a, family);
        assert_eq!(client.tcp(to), format!("{says} peer {to}"));
        assert_eq!(client.udp(to), format!("{says} from {to}"));
        assert_eq!(client.bulk(to, 4 << 20), (4 << 20).to_string());
    }
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
        assert_eq!(client.tcp(to), format!("{says} peer {to}"));
        assert_eq!(client.udp(to), format!("{says} from {to}"));
        assert_eq!(
            client.udp_connected(to),
            format!("{says} from {to} peer {to}")
        );
        // The pod itself, through its own service.
        assert!(server.tcp(to).ends_with(&format!("peer {to}")));
        // The node's processes, too.
        assert!(node.process().tcp(to).starts_with(&b.local.container_id));
    }
    // An IPv6 socket that talks IPv4.
    let mapped = "[::ffff:10.96.0.5]:80";
    let says = says(&b, &a, 0);
    assert_eq!(client.tcp(mapped), format!("{says} peer {mapped}"));
    assert_eq!(client.udp(mapped), format!("{says} from {mapped}"));
    assert_eq!(
        client.udp_connected(mapped),
        format!("{says} from {mapped} peer {mapped}")
    );
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

/// Name and kernel id of everything that is pinned.
fn pins(node: &Node) -> Vec<(String, String)> {
    let mut pins: Vec<_> = std::fs::read_dir(node.bpffs())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, kernel_id(&path))
        })
        .collect();
    pins.sort();
    pins
}

fn kernel_id(pin: &Path) -> String {
    let kind = match pin.file_name().unwrap().to_str().unwrap().split_once('_') {
        Some(("map", _)) => "map",
        Some(("prog", _)) => "prog",
        Some(("link", _)) => "link",
        _ => return String::new(),
    };
    let shown = std::process::Command::new("bpftool")
        .args(["-j", kind, "show", "pinned"])
        .arg(pin)
        .output();
    let Ok(shown) = shown else {
        return "no bpftool".into();
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let id = text
        .split("\"id\":")
        .nth(1)
        .and_then(|rest| rest.split([',', '}']).next());
    id.unwrap_or_else(|| panic!("{}: {text}", pin.display()))
        .to_owned()
}

#[test]
fn a_new_engine_adopts_what_is_there() {
    let mut node: Node = node("adopt");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (to, backend) in SERVICES.into_iter().zip(b.at(8080)) {
        node.serve(to, Protocol::Tcp, &[backend]);
    }
    assert_eq!(client.hold(SERVICES[0]), SERVICES[0]);
    let before = pins(&node);
    let tables = node.run(|engine| engine.status()).tables;
    // No agent: all goes on.
    node.engine = None;
    assert_eq!(client.held(), "still there");
    assert!(client.tcp(SERVICES[1]).starts_with(&b.local.container_id));
    node.open();
    let status = node.run(|engine| engine.status());
    assert!(status.adopted);
    assert_eq!(status.tables, tables);
    // What the agent does next changes nothing.
    let mut desired = Tables::default();
    desired.apply(&unrestricted([&a.local, &b.local]));
    for (to, backend) in SERVICES.into_iter().zip(b.at(8080)) {
        let change = service(to, Protocol::Tcp, &[backend]);
        node.run(|engine| engine.apply(&change)).unwrap();
        desired.apply(&change);
    }
    for pod in [&a, &b] {
        node.run(|engine| engine.add_pod(&pod.local)).unwrap();
    }
    let known = [a.local.clone(), b.local.clone()];
    let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
    assert_eq!(drift.repaired, [""; 0]);
    assert_eq!(pins(&node), before);
    assert_eq!(client.held(), "still there");
}

#[test]
fn other_programs_take_the_place_of_the_old_ones() {
    let mut node: Node = node("upgrade");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    node.serve(SERVICES[0], Protocol::Tcp, &[b.at(8080)[0]]);
    assert_eq!(client.hold(SERVICES[0]), SERVICES[0]);
    let before = pins(&node);
    // As if the programs were of another version: they are not adopted.
    std::fs::remove_file(node.bpffs().join("prog_connect4")).unwrap();
    node.open();
    assert!(node.run(|engine| engine.status()).adopted);
    node.run(|engine| engine.add_pod(&a.local)).unwrap();
    let after = pins(&node);
    let of = |pins: &[(String, String)], kind: &str| -> Vec<_> {
        pins.iter()
            .filter(|pin| pin.0.starts_with(kind))
            .cloned()
            .collect()
    };
    for kept in ["map_", "link_"] {
        assert_eq!(of(&after, kept), of(&before, kept));
    }
    assert!(client.tcp(SERVICES[0]).starts_with(&b.local.container_id));
    assert_eq!(client.held(), "still there");
}

#[test]
fn old_tables_serve_until_the_new_ones_are_full() {
    let mut node: Node = node("schema");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    let mut desired = Tables::default();
    desired.apply(&unrestricted([&a.local, &b.local]));
    for (to, backend) in SERVICES.into_iter().zip(b.at(8080)) {
        node.serve(to, Protocol::Tcp, &[backend]);
        desired.apply(&service(to, Protocol::Tcp, &[backend]));
    }
    // As if the tables were of another version.
    std::fs::remove_file(node.bpffs().join("state")).unwrap();
    node.open();
    assert!(!node.run(|engine| engine.status()).adopted);
    // New tables with one of the services: the old ones answer for both.
    node.serve(SERVICES[0], Protocol::Tcp, &[b.at(8080)[0]]);
    for to in SERVICES {
        assert!(client.tcp(to).starts_with(&b.local.container_id), "{to}");
    }
    let pods = [a.local.clone(), b.local.clone()];
    node.run(|engine| engine.audit(&desired, &pods)).unwrap();
    // From here on changes count.
    for (to, backend) in SERVICES.into_iter().zip(b.at(8080)) {
        assert!(client.tcp(to).starts_with(&b.local.container_id), "{to}");
        assert!(client.tcp(backend).starts_with(&b.local.container_id));
        node.serve(to, Protocol::Tcp, &[]);
        assert_eq!(client.tcp(to), "error: ConnectionRefused");
    }
}

#[test]
fn an_audit_repairs() {
    let mut node: Node = node("audit");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let to = SERVICES[0];
    node.serve(to, Protocol::Tcp, &[b.at(8080)[0]]);
    node.serve(SERVICES[1], Protocol::Tcp, &[b.at(8080)[1]]);
    let name = &b.local.host_ifname;
    std::fs::remove_file(node.bpffs().join("link_connect4")).unwrap();
    let detach = [traffic::detach(
        b.local.host_ifindex,
        traffic::Hook::Ingress,
    )];
    node.run(|_| Netlink::new().unwrap().execute(detach))
        .unwrap();
    // Only one of the services, and one of the pods, is wanted.
    let mut desired = Tables::default();
    desired.apply(&unrestricted([&b.local]));
    desired.apply(&service(to, Protocol::Tcp, &[b.at(8080)[0]]));
    let drift = node
        .run(|engine| engine.audit(&desired, std::slice::from_ref(&b.local)))
        .unwrap();
    let mut repaired = drift.repaired;
    repaired.sort();
    assert_eq!(
        repaired,
        [
            format!("endpoint {} (removed)", a.addresses[0]),
            format!("endpoint {} (removed)", a.addresses[1]),
            format!("frontend {}/TCP (removed)", SERVICES[1]),
            format!("policies of pod {} (removed)", a.addresses[0]),
            format!("policies of pod {} (removed)", a.addresses[1]),
            "program connect4 on the cgroup".into(),
            format!("program on {name}"),
            format!("program on {} (removed)", a.local.host_ifname),
        ]
    );
    let drift = node
        .run(|engine| engine.audit(&desired, std::slice::from_ref(&b.local)))
        .unwrap();
    assert_eq!(drift.repaired, [""; 0]);
    assert!(node.process().tcp(to).starts_with(&b.local.container_id));
}

#[test]
fn a_full_table_names_the_row_and_keeps_the_others() {
    let mut node: Node = node("full");
    let pod = node.add_pod();
    let to = pod.at(8080)[0];
    for port in 1..=64 {
        node.serve(&format!("10.96.0.5:{port}"), Protocol::Tcp, &[to]);
    }
    let change = service("10.96.0.6:80", Protocol::Tcp, &[to]);
    let error = node.run(|engine| engine.apply(&change)).unwrap_err();
    assert!(
        matches!(&error, Error::TableFull { table: "frontends", limit: 64, row } if row == "10.96.0.6:80/TCP"),
        "{error}"
    );
    let tables = node.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("frontends", 64, 64)), "{tables:?}");
    assert!(tables.contains(&("backends", 64, 256)), "{tables:?}");
}

#[test]
fn tables_grow_under_connections() {
    let mut node: Node = node("grow");
    node.limit(Limits::default());
    let pods = [node.add_pod(), node.add_pod()];
    let (mut server, mut client) = (pods[1].process(), pods[0].process());
    server.serve(8080);
    let to = pods[1].at(8080)[0];
    let frontend = |n: usize| format!("10.96.{}.{}:{}", n / 8000, n / 100 % 80, n % 100 + 1);
    let services = |numbers: std::ops::Range<usize>| {
        let mut change = Change::default();
        for number in numbers {
            let one = service(&frontend(number), Protocol::Tcp, &[to]);
            change.frontends.extend(one.frontends);
        }
        change
    };
    node.serve("10.96.99.1:80", Protocol::Udp, &[to]);
    node.run(|engine| engine.apply(&services(0..100))).unwrap();
    assert_eq!(client.hold(frontend(0)), frontend(0));
    let says = says(&pods[1], &pods[0], 0);
    assert_eq!(client.hold_udp("10.96.99.1:80"), says);
    let mut rows = Rows::default();
    rows.pod(&pods[1], [INGRESS, NOBODY])
        .class(pods[0].addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, any());
    for class in 0..40_000 {
        rows.rule(EGRESS, ClassId::from_number(1000 + class), any());
    }
    for more in [services(100..20_000), rows.change()] {
        node.run(|engine| engine.apply(&more)).unwrap();
        // Who was there goes on, and who is new is led.
        assert_eq!(client.held(), "still there");
        assert_eq!(client.held_udp(), says);
        for number in [0, 50, 19_999] {
            let to = frontend(number);
            assert_eq!(client.tcp(&to), format!("{says} peer {to}"));
        }
    }
    // The next engine takes them as they are.
    node.open();
    let status = node.run(|engine| engine.status());
    assert!(status.adopted);
    assert!(status.tables.contains(&("frontends", 20_001, 65_536)));
    assert!(status.tables.contains(&("policy_pairs", 40_003, 524_288)));
    assert_eq!(client.held(), "still there");
    assert_eq!(client.held_udp(), says);
}

/// An address of a pod may fill a quarter of the table with what it begins, so one
/// alone does not. Which rows no answer needs, and which ones stay.
#[test]
fn a_full_table_of_connections_refuses_new_ones() {
    let mut node: Node = node("connections");
    let server = node.add_pod();
    let pods: [Pod; 5] = std::array::from_fn(|_| node.add_pod());
    let mut processes = pods.each_ref().map(Pod::process);
    let mut other = server.process();
    other.serve(8080);
    let mut rows = Rows::default();
    for pod in &pods {
        rows.pod(pod, [INGRESS, NOBODY]);
    }
    rows.class(server.addresses.map(Into::into), CLASS).rule(
        INGRESS,
        CLASS,
        port(Protocol::Tcp, 8080, 8080),
    );
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    let [to, to_v6] = server.at(8080);
    let [first, .., last] = &mut processes;
    first.serve(8080);
    assert_eq!(first.hold(to), to.to_string());
    assert_eq!(last.hold(to), to.to_string());
    let share = 64 / 4;
    // Each by a port of its own: a row of its own.
    let ask = |process: &mut Process, asks: u16| {
        let answered = (20_000..20_000 + asks).filter(|port| {
            process.send_from(*port);
            !process.udp(to).starts_with("error")
        });
        let answered = answered.count();
        process.send_from(0);
        answered
    };
    // One is held.
    assert_eq!(ask(first, share), usize::from(share) - 1);
    assert!(first.is_dropped(to));
    assert_eq!(ask(&mut processes[1], share), 16);
    assert_eq!(ask(&mut processes[2], share), 16);
    // Of the last quarter one row is the last pod's.
    assert_eq!(ask(&mut processes[3], share), 15);
    let [first, .., last] = &mut processes;
    assert!(last.is_dropped(to_v6));
    for process in [first, last] {
        assert_eq!(process.held(), "still there");
    }
    let status = node.run(|engine| engine.status());
    let mut drops = status.drops.into_iter();
    let full = drops.find(|(reason, _)| *reason == "connections_full");
    assert!(full.is_some_and(|(_, count)| count > 0), "{full:?}");
    // Who asks the pod gets answers: they pass by themselves.
    for to in pods[0].at(8080) {
        assert!(!other.tcp(to).starts_with("error"));
    }
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

/// A row that does not fit closes the pods that it is about, and no others.
#[test]
fn a_full_table_of_policies_closes_its_pods() {
    let mut node: Node = node("pairs");
    let (a, b, c) = (node.add_pod(), node.add_pod(), node.add_pod());
    let _servers = [&a, &b].map(|pod| {
        let mut process = pod.process();
        process.serve(8080);
        process
    });
    let mut rows = Rows::default();
    rows.pod(&a, [INGRESS, NOBODY])
        .pod(&b, [EGRESS, NOBODY])
        .class(c.addresses.map(Into::into), CLASS)
        .rule(EGRESS, CLASS, any());
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    for class in 0..64 {
        rows.rule(INGRESS, ClassId::from_number(1000 + class), any());
    }
    rows.rule(INGRESS, CLASS, any());
    let error = node.run(|engine| engine.apply(&rows.change())).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::TableFull {
                table: "policy_pairs",
                limit: 64,
                ..
            }
        ),
        "{error}"
    );
    let mut client = c.process();
    for (closed, open) in a.at(8080).into_iter().zip(b.at(8080)) {
        assert!(client.is_dropped(closed));
        assert!(!client.tcp(open).starts_with("error"));
    }
    // When they fit it opens.
    let mut fewer = Rows::default();
    fewer
        .pod(&a, [INGRESS, NOBODY])
        .pod(&b, [EGRESS, NOBODY])
        .class(c.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, any())
        .rule(EGRESS, CLASS, any());
    let mut desired = Tables::default();
    desired.apply(&unrestricted([&c.local]));
    desired.apply(&fewer.change());
    let pods = [&a, &b, &c].map(|pod| pod.local.clone());
    node.run(|engine| engine.audit(&desired, &pods)).unwrap();
    for to in [a.at(8080), b.at(8080)].concat() {
        assert!(!client.tcp(to).starts_with("error"), "{to}");
    }
}

fn host_port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> HostPort {
    HostPort {
        host_ip: host_ip.map(ip),
        host_port,
        container_port: 8080,
        protocol,
    }
}

#[test]
fn host_ports_lead_to_their_pod() {
    let [mut one, mut other]: [Node; 2] = nodes("hostport");
    one.route_to(&other, 1500);
    other.route_to(&one, 1500);
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| host_port(None, 80, protocol));
    let (pod, neighbour) = (one.add_pod_with_ports(ports.into()), one.add_pod());
    let far_pod = other.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let name = &pod.local.container_id;
    for family in 0..2 {
        let to = SocketAddr::new(one.addresses[family], 80);
        // From the other node, and from its pods, by packets.
        let mut far = other.process();
        let sees = format!("{name} sees {}", other.addresses[family]);
        assert_eq!(far.tcp(to), format!("{sees} peer {to}"));
        assert_eq!(far.udp(to), format!("{sees} from {to}"));
        assert_eq!(far.bulk(to, 4 << 20), (4 << 20).to_string());
        let sees = format!("{name} sees {}", far_pod.addresses[family]);
        let mut far = far_pod.process();
        assert_eq!(far.tcp(to), format!("{sees} peer {to}"));
        assert_eq!(far.udp(to), format!("{sees} from {to}"));
        // From this node and its pods, by sockets.
        let sees = format!("{name} sees {}", neighbour.addresses[family]);
        assert_eq!(neighbour.process().tcp(to), format!("{sees} peer {to}"));
        assert_eq!(neighbour.process().udp(to), format!("{sees} from {to}"));
        let loopback = ["127.0.0.1:80", "[::1]:80"][family];
        let mut here = one.process();
        assert!(here.tcp(to).starts_with(name));
        assert!(here.tcp(loopback).ends_with(&format!("peer {loopback}")));
        assert!(here.udp(loopback).ends_with(&format!("from {loopback}")));
        // A pod's localhost is its own.
        assert_eq!(
            neighbour.process().tcp(loopback),
            "error: ConnectionRefused"
        );
    }
    one.run(|engine| engine.remove_pod(&pod.local)).unwrap();
    let to = SocketAddr::new(one.addresses[0], 80);
    assert_eq!(other.process().tcp(to), "error: ConnectionRefused");
    assert_eq!(one.process().tcp(to), "error: ConnectionRefused");
}

#[test]
fn one_host_port_on_two_addresses() {
    let mut node: Node = node("hostips");
    let on = |address| vec![host_port(Some(address), 80, Protocol::Tcp)];
    let (a, b) = (
        node.add_pod_with_ports(on("172.30.1.11")),
        node.add_pod_with_ports(on("127.0.0.1")),
    );
    let (mut server_a, mut server_b) = (a.process(), b.process());
    server_a.serve(8080);
    server_b.serve(8080);
    assert!(
        node.process()
            .tcp("172.30.1.11:80")
            .starts_with(&a.local.container_id)
    );
    assert!(
        node.process()
            .tcp("127.0.0.1:80")
            .starts_with(&b.local.container_id)
    );
    let third = node.make_pod(vec![host_port(None, 80, Protocol::Tcp)]);
    let error = node.run(|engine| engine.add_pod(&third.local)).unwrap_err();
    assert!(matches!(&error, Error::PortTaken { .. }), "{error}");
    // And nothing of it is left.
    let tables = node.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("endpoints", 4, 1024)), "{tables:?}");
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

#[test]
fn bytes_are_counted_when_a_connection_ends() {
    let mut node: Node = node("bytes");
    let (a, b) = (node.add_pod(), node.add_pod());
    let mut server = b.process();
    server.serve(8080);
    let mut client = a.process();
    for (family, to) in SERVICES.into_iter().enumerate() {
        let there = b.at(8080)[family];
        node.serve(to, Protocol::Tcp, &[there]);
        let bytes = |node: &mut Node| {
            let frontend: SocketAddr = to.parse().unwrap();
            let states = node.run(|engine| engine.services()).unwrap();
            let mut states = states.iter();
            let state = states.find(|s| s.frontend.address == frontend.ip());
            state.unwrap().backends[0].bytes.unwrap()
        };
        assert_eq!(bytes(&mut node), 0);
        // Of no service: not counted.
        assert_eq!(client.bulk(there, 1 << 20), (1 << 20).to_string());
        assert_eq!(bytes(&mut node), 0);
        assert_eq!(client.bulk(to, 1 << 20), (1 << 20).to_string());
        // Both ways, with a SYN and up to two FINs.
        let counted = bytes(&mut node);
        assert!(((2 << 20)..=(2 << 20) + 3).contains(&counted), "{counted}");
        assert_eq!(client.hold(to), to);
        assert_eq!(client.held(), "still there");
        assert_eq!(bytes(&mut node), counted);
        drop(client);
        client = a.process();
        let more = bytes(&mut node) - counted;
        assert!((2..=5).contains(&more), "{more}");
    }
}

#[test]
fn bytes_of_flows_are_counted_as_they_come() {
    let [mut one, other] = services::nodes::<EbpfEngine>("bytes");
    let pod = one.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let mut outside = other.process();
    for family in 0..2 {
        let to = SocketAddr::new(one.addresses[family], 30080);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            one.serve(&to.to_string(), protocol, &[pod.at(8080)[family]]);
        }
        let bytes = |node: &mut Node, protocol: Protocol| {
            let states = node.run(|engine| engine.services()).unwrap();
            let mut states = states.iter();
            let state = states.find(|state| {
                (state.frontend.address, state.frontend.protocol) == (to.ip(), protocol)
            });
            state.unwrap().backends[0].bytes.unwrap()
        };
        assert_eq!(outside.bulk(to, 1 << 20), (1 << 20).to_string());
        // What had to be sent again counts again.
        let counted = bytes(&mut one, Protocol::Tcp);
        assert!(((2 << 20)..(3 << 20)).contains(&counted), "{counted}");
        let answer = outside.hold_udp(to);
        let once = 1 + answer.len() as u64;
        assert_eq!(bytes(&mut one, Protocol::Udp), once);
        assert_eq!(outside.held_udp(), answer);
        assert_eq!(bytes(&mut one, Protocol::Udp), 2 * once);
    }
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

#[test]
fn an_audit_finds_sockets_whose_backend_went_meanwhile() {
    let mut node: Node = node("stranded2");
    let pod = node.add_pod();
    let mut server = pod.process();
    server.serve(8080);
    let mut client = node.process();
    node.serve(SERVICES[0], Protocol::Udp, &[pod.at(8080)[0]]);
    assert!(
        client
            .hold_udp(SERVICES[0])
            .starts_with(&pod.local.container_id)
    );
    node.engine = None;
    node.open();
    let pods = [pod.local.clone()];
    node.run(|engine| engine.audit(&Tables::default(), &pods))
        .unwrap();
    assert_eq!(client.held_udp(), "error: disconnected");
}
