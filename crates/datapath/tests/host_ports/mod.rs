//! Ports of the node that lead to one of its pods.

use std::net::SocketAddr;

use ripstop_datapath::{Datapath, Error};
use ripstop_model::{HostPort, Protocol};

use crate::common::{Node, ip, node, nodes};

/// Leads to port 8080 of the pod.
pub(crate) fn host_port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> HostPort {
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
