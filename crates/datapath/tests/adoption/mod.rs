//! What an engine finds of another one, and of itself after an audit.

use std::path::Path;

use ripstop_datapath::Datapath;
use ripstop_model::Protocol;
use ripstop_netlink::{Netlink, traffic};
use ripstop_plan::Tables;

use crate::SERVICES;
use crate::common::{Node, node, service, unrestricted};

/// Name and kernel id of everything that is pinned.
pub(crate) fn pins(node: &Node) -> Vec<(String, String)> {
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
