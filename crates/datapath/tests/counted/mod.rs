//! Bytes of backends.

use std::net::SocketAddr;

use ripstop_datapath::Datapath;
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_model::Protocol;

use crate::SERVICES;
use crate::common::{Node, node};
use crate::services;

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
