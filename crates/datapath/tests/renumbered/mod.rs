//! A pod reaches one backend by a service and without it, from one port: with
//! real sockets between namespaces. Needs root.

use std::net::SocketAddr;

use crate::common::{Node, Pod, net, service};
use crate::services::{SERVICES, nodes, says};
use ripstop_datapath::Datapath;
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_model::Protocol;

/// Of a service whose clients are restricted, so that packets are looked at.
const RESTRICTED: [&str; 2] = ["192.0.2.80:80", "[2001:db8::80]:80"];
const PORT: u16 = 40_000;

/// Leads there whatever is sent to the services of this family.
fn serve(node: &mut Node, family: usize, to: SocketAddr) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut change = service(RESTRICTED[family], protocol, &[to]);
        for row in change.frontends.values_mut().flatten() {
            row.source_ranges = ["10.244.0.0/16", "fd00:244::/32"].map(net).into();
        }
        node.run(|engine| engine.apply(&change)).unwrap();
        node.serve(SERVICES[family], protocol, &[to]);
    }
}

#[test]
fn one_port_two_ways_to_a_backend() {
    let [mut one, mut other] = nodes::<EbpfEngine>("oneport");
    let (client, near, far) = (one.add_pod(), one.add_pod(), other.add_pod());
    let mut processes = [near.process(), far.process()];
    processes.iter_mut().for_each(|server| server.serve(8080));
    let mut port = PORT;
    let mut next = || {
        port += 1;
        port
    };
    for (family, named) in SERVICES.into_iter().enumerate() {
        let named = named.parse().unwrap();
        for server in [&near, &far] {
            let to = server.at(8080)[family];
            serve(&mut one, family, to);
            // As the sockets' programs lead it, and by the pod's own name.
            for straight in [named, to] {
                connections(&client, server, family, straight, next());
                datagrams(&client, server, family, straight, next());
            }
        }
    }
}

fn connections(client: &Pod, server: &Pod, family: usize, straight: SocketAddr, port: u16) {
    let says = says(server, client, family);
    let mut process = client.process();
    process.send_from(port);
    let led = RESTRICTED[family];
    assert_eq!(process.hold(led), led);
    assert_eq!(process.held(), "still there");
    assert_eq!(process.tcp(straight), format!("{says} peer {straight}"));
    assert_eq!(process.held(), "still there");
}

fn datagrams(client: &Pod, server: &Pod, family: usize, straight: SocketAddr, port: u16) {
    let says = says(server, client, family);
    let mut process = client.process();
    process.send_from(port);
    assert_eq!(process.hold_udp(SERVICES[family]), says);
    for _ in 0..2 {
        assert_eq!(process.udp(straight), format!("{says} from {straight}"));
        assert_eq!(process.held_udp(), says);
    }
}
