mod parts;
mod ports;
mod renumbered;
mod stranded;

use std::vec;
use std::vec::Vec;

use core::net::IpAddr;

use super::*;
use crate::Address;
use crate::test_packets::{MemoryTables, Sample, checksums_are_right};
use crate::wire::IPPROTO_TCP;
use crate::{
    Backend, Endpoint, FLAG_LOCAL, FLAG_RANGES, FlowPorts, IPPROTO_SCTP, IPPROTO_UDP, PacketBytes,
    Port, RANGE_NODE, RANGE_PODS, Route, RouteKey, Uplink,
};

const UPLINK: u32 = 2;
const POD: u32 = 7;
/// In the place of an index: out by the uplink.
const LEAVING: u32 = u32::MAX;
const OTHER: u32 = 8;
const FIRST_PORT: u16 = 1024;

const fn flow_ports(count: u16) -> FlowPorts {
    FlowPorts::without_gaps(FIRST_PORT, count)
}

/// Addresses of one family.
struct Names {
    client: &'static str,
    node: &'static str,
    pod: &'static str,
    other: &'static str,
    far_pod: &'static str,
    far_node: &'static str,
    service: &'static str,
    no_service: &'static str,
    set: u32,
}

const FAMILIES: [Names; 2] = [
    Names {
        client: "192.0.2.9",
        node: "172.30.1.11",
        pod: "10.244.1.2",
        other: "10.244.1.3",
        far_pod: "10.244.2.2",
        far_node: "172.30.1.12",
        service: "10.96.0.5",
        no_service: "10.96.0.6",
        set: 100,
    },
    Names {
        client: "2001:db8::9",
        node: "fd00:30:1::b",
        pod: "fd00:244:1::2",
        other: "fd00:244:1::3",
        far_pod: "fd00:244:2::2",
        far_node: "fd00:30:1::c",
        service: "fd00:96::5",
        no_service: "fd00:96::6",
        set: 200,
    },
];

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn at(text: &str, port: u16, protocol: u8) -> ServiceAddress {
    ServiceAddress::new(address(text), Port::from_host(port), protocol)
}

fn to(text: &str, port: u16) -> Backend {
    Backend::new(address(text), Port::from_host(port))
}

/// Two pods here and the pods of another node; services on ports of the
/// service's and the node's address.
fn tables() -> MemoryTables {
    let mut tables = MemoryTables {
        ports: flow_ports(30_000),
        ..MemoryTables::default()
    };
    let uplink = Uplink::new(address(FAMILIES[0].node), address(FAMILIES[1].node));
    tables.uplinks.insert(0, uplink);
    tables.uplinks.insert(UPLINK, uplink);
    for names in &FAMILIES {
        let bits = |v4: u32, v6: u32| if names.set == 100 { 96 + v4 } else { v6 };
        let range = |text, prefix_len| RouteKey {
            prefix_len,
            address: address(text),
        };
        tables
            .endpoints
            .insert(address(names.pod), Endpoint::new(POD, [2, 0, 0, 0, 0, 7]));
        tables.endpoints.insert(
            address(names.other),
            Endpoint::new(OTHER, [2, 0, 0, 0, 0, 8]),
        );
        let far = range(names.far_pod, bits(24, 64));
        let route = Route {
            ifindex: UPLINK,
            mtu: 1400,
            gateway: address(names.far_node),
        };
        tables.routes.push((far, route));
        tables.ranges.extend([
            (range(names.pod, bits(16, 48)), RANGE_PODS),
            (range(names.far_pod, bits(16, 48)), RANGE_PODS),
            (range(names.service, bits(16, 112)), RANGE_SERVICES),
            (range(names.node, bits(24, 64)), RANGE_NODE),
            (
                range(if names.set == 100 { "0.0.0.0" } else { "::" }, bits(0, 0)),
                RANGE_OUTSIDE,
            ),
        ]);
        for protocol in [IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP] {
            let set = names.set + u32::from(protocol % 100) * 100;
            let near = [to(names.pod, 8080)];
            let far = [to(names.far_pod, 8080)];
            let itself = Frontend::new(set, 1, 0).with_outside(1, 0);
            tables.serve(at(names.service, 80, protocol), itself, &near);
            let node_port = Frontend::new(set + 1, 1, 0).with_outside(1, 0);
            tables.serve(at(names.node, 30_080, protocol), node_port, &near);
            let far_port = Frontend::new(set + 2, 1, 0).with_outside(1, 0);
            tables.serve(at(names.node, 30_081, protocol), far_port, &far);
            let local = Frontend::new(set + 3, 1, FLAG_LOCAL).with_outside(1, 0);
            tables.serve(at(names.node, 30_082, protocol), local, &near);
            let elsewhere = Frontend::new(set + 4, 1, FLAG_LOCAL);
            tables.serve(at(names.node, 30_083, protocol), elsewhere, &far);
            let nobody = Frontend::new(set + 5, 0, 0);
            tables.serve(at(names.node, 30_084, protocol), nobody, &[]);
            let itself = Frontend::new(set + 7, 1, 0).with_outside(1, 0);
            tables.serve(
                at(names.node, 30_086, protocol),
                itself,
                &[to(names.node, 8080)],
            );
            let ranged = Frontend::new(set + 6, 1, FLAG_RANGES).with_outside(1, 0);
            tables.serve(at(names.node, 30_085, protocol), ranged, &near);
            tables.sources.push((set + 6, range(names.far_node, 128)));
        }
    }
    tables
}

fn through(tables: &MemoryTables, bytes: &mut Vec<u8>, ifindex: u32) -> Verdict {
    let mut packet = PacketBytes {
        bytes,
        link: [0; 6],
        ifindex,
        segment_size: 0,
        came_by: 0,
        socket: None,
    };
    if ifindex == LEAVING {
        packet.ifindex = UPLINK;
        crate::to_outside(&mut packet, tables).verdict()
    } else if ifindex == UPLINK {
        crate::from_outside(&mut packet, tables).verdict()
    } else {
        crate::from_pod(&mut packet, tables).verdict()
    }
}

/// Sends a packet, by the link `from`; it has to become `becomes`, one hop
/// older and with right checksums.
#[track_caller]
fn turns(tables: &MemoryTables, from: u32, sample: &Sample, becomes: &Sample) -> Verdict {
    let mut bytes = sample.bytes();
    let verdict = through(tables, &mut bytes, from);
    assert!(checksums_are_right(&bytes), "{verdict:?}");
    // Routes are the stack's where a packet leaves.
    let hops = if from == LEAVING { 64 } else { 63 };
    let expected = Sample {
        hops,
        ..becomes.clone()
    };
    let expected = expected.bytes();
    assert_eq!(bytes[12..], expected[12..], "{verdict:?} {sample:?}");
    verdict
}

/// The port that the first translated packet got: chance is fixed.
fn node_port(tables: &MemoryTables) -> u16 {
    let flows = tables.flows.borrow();
    let requests = flows.values().filter(|flow| flow.flags & FLOW_REPLY == 0);
    requests.last().unwrap().source_port.host()
}

type Make = fn((&str, u16), (&str, u16)) -> Sample;
const KINDS: [Make; 3] = [Sample::tcp_syn, Sample::udp, Sample::sctp];

const DELIVER: Verdict = Verdict::Deliver { ifindex: POD };
const OUT: Verdict = Verdict::Route { ifindex: UPLINK };

#[test]
fn node_ports_lead_in_by_the_node_s_address() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 30_080));
            let mut bytes = request.bytes();
            let verdict = through(&tables, &mut bytes, UPLINK);
            assert_eq!(verdict, DELIVER);
            let port = node_port(&tables);
            assert!(port >= FIRST_PORT);
            let inside = make((names.node, port), (names.pod, 8080));
            // Every packet of it alike.
            assert_eq!(turns(&tables, UPLINK, &request, &inside), DELIVER);
            let answer = make((names.pod, 8080), (names.node, port));
            let outside = make((names.node, 30_080), (names.client, 1000));
            assert_eq!(turns(&tables, POD, &answer, &outside), OUT);
            assert_eq!(tables.connections.borrow().values().sum::<u64>(), 1);
        }
    }
}

#[test]
fn node_ports_lead_to_other_nodes_and_back() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 30_081));
            let mut bytes = request.bytes();
            let gateway = address(names.far_node);
            let ifindex = UPLINK;
            let forward = Verdict::Forward { ifindex, gateway };
            assert_eq!(through(&tables, &mut bytes, UPLINK), forward);
            let port = node_port(&tables);
            let inside = make((names.node, port), (names.far_pod, 8080));
            assert_eq!(turns(&tables, UPLINK, &request, &inside), forward);
            let answer = make((names.far_pod, 8080), (names.node, port));
            let outside = make((names.node, 30_081), (names.client, 1000));
            assert_eq!(turns(&tables, UPLINK, &answer, &outside), OUT);
            // What does not fit is told so.
            let long = Sample {
                payload: vec![0; 1400],
                ..request
            };
            let mut bytes = long.bytes();
            let told = through(&tables, &mut bytes, UPLINK);
            assert_eq!(told, Verdict::Answer(DropReason::TooLong));
            assert!(checksums_are_right(&bytes));
        }
    }
}

/// Types and codes: nobody at that port, too long, too many hops.
fn errors(names: &Names) -> [[u8; 2]; 3] {
    if names.set == 100 {
        [[3, 3], [3, 4], [11, 0]]
    } else {
        [[1, 4], [2, 0], [3, 0]]
    }
}

#[test]
fn errors_go_with_the_flow_that_they_are_about() {
    for names in &FAMILIES {
        for (make, error) in KINDS
            .into_iter()
            .flat_map(|make| errors(names).map(|error| (make, error)))
        {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 30_081));
            let _ = through(&tables, &mut request.bytes(), UPLINK);
            let inside = make((names.node, node_port(&tables)), (names.far_pod, 8080));
            // From the backend, or on the way to it: told to the client as the
            // service's, which is all that it knows of.
            for from in [names.far_pod, names.far_node] {
                let came = Sample::error(from, error, &inside);
                let becomes = Sample::error(names.node, error, &request);
                assert_eq!(turns(&tables, UPLINK, &came, &becomes), OUT);
            }
            // About an answer.
            let came = Sample::error(names.client, error, &request.reversed());
            let becomes = Sample::error(names.node, error, &inside.reversed());
            let verdict = turns(&tables, UPLINK, &came, &becomes);
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            // About what is no flow's: as it was.
            let other = make((names.node, 999), (names.far_pod, 8080));
            let came = Sample::error(names.far_pod, error, &other);
            let mut bytes = came.bytes();
            assert_eq!(through(&tables, &mut bytes, UPLINK), Verdict::Stack);
            assert_eq!(bytes, came.bytes());
        }
    }
}

#[test]
fn pods_tell_and_are_told_of_errors() {
    for names in &FAMILIES {
        for error in errors(names) {
            let tables = tables();
            // A pod's datagram to a service, and the error of its backend.
            let request = Sample::udp((names.other, 1000), (names.service, 80));
            let inside = Sample::udp((names.other, 1000), (names.pod, 8080));
            let _ = turns(&tables, OTHER, &request, &inside);
            let came = Sample::error(names.pod, error, &inside);
            let becomes = Sample::error(names.service, error, &request);
            let told = Verdict::Deliver { ifindex: OTHER };
            assert_eq!(turns(&tables, POD, &came, &becomes), told);
            // A client from outside hears of what is behind the port.
            let request = Sample::tcp_syn((names.client, 1000), (names.node, 30_082));
            let inside = Sample::tcp_syn((names.client, 1000), (names.pod, 8080));
            assert_eq!(turns(&tables, UPLINK, &request, &inside), DELIVER);
            let came = Sample::error(names.pod, error, &inside);
            let becomes = Sample::error(names.node, error, &request);
            assert_eq!(turns(&tables, POD, &came, &becomes), OUT);
        }
    }
}

#[test]
fn errors_about_what_left_the_cluster_come_to_the_pod() {
    for names in &FAMILIES {
        for make in [KINDS[0], KINDS[1], KINDS[2], Sample::echo] {
            for error in errors(names) {
                let tables = tables();
                let request = make((names.pod, 1000), (names.client, 443));
                let _ = through(&tables, &mut request.bytes(), LEAVING);
                let outside = make((names.node, node_port(&tables)), (names.client, 443));
                // By whom: a trace of the way has to show it.
                for from in [names.far_node, names.client] {
                    let came = Sample::error(from, error, &outside);
                    let becomes = Sample::error(from, error, &request);
                    assert_eq!(turns(&tables, UPLINK, &came, &becomes), DELIVER);
                }
                // The pod's own, about an answer, by way of the stack.
                if request.protocol == IPPROTO_UDP {
                    let came = Sample::error(names.pod, error, &request.reversed());
                    let mut bytes = came.bytes();
                    assert_eq!(through(&tables, &mut bytes, POD), Verdict::Stack);
                    assert_eq!(bytes, came.bytes());
                    let becomes = Sample::error(names.node, error, &outside.reversed());
                    assert_eq!(turns(&tables, LEAVING, &came, &becomes), Verdict::Stack);
                }
            }
        }
    }
}

/// A connection of a pod to a backend itself may have the port of one that went
/// by the service before.
#[test]
fn an_ended_flow_is_not_that_of_the_next_connection() {
    for names in &FAMILIES {
        let tables = tables();
        let (client, pod) = ((names.other, 1000), (names.pod, 8080));
        let service = (names.service, 80);
        let told = Verdict::Deliver { ifindex: OTHER };
        let tcp = |flags, from, to| Sample {
            flags,
            ..Sample::tcp(from, to)
        };
        for (flags, answer) in [(0x02, 0x12), (0x11, 0x11)] {
            let request = tcp(flags, client, service);
            assert_eq!(
                turns(&tables, OTHER, &request, &tcp(flags, client, pod)),
                DELIVER
            );
            let came = tcp(answer, pod, client);
            assert_eq!(
                turns(&tables, POD, &came, &tcp(answer, service, client)),
                told
            );
        }
        for flags in [0x12, 0x10] {
            let came = tcp(flags, pod, client);
            assert_eq!(turns(&tables, POD, &came, &came), told);
        }
    }
}

#[test]
fn local_node_ports_keep_the_client() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 30_082));
            let inside = make((names.client, 1000), (names.pod, 8080));
            assert_eq!(turns(&tables, UPLINK, &request, &inside), DELIVER);
            let answer = make((names.pod, 8080), (names.client, 1000));
            let outside = make((names.node, 30_082), (names.client, 1000));
            assert_eq!(turns(&tables, POD, &answer, &outside), OUT);
            // To pods of other nodes pods answer straight: the node speaks for them.
            let request = make((names.far_pod, 1000), (names.node, 30_082));
            let mut bytes = request.bytes();
            assert_eq!(through(&tables, &mut bytes, UPLINK), DELIVER);
            // Who is to be elsewhere is not led there.
            for client in [names.client, names.far_pod] {
                let elsewhere = make((client, 1000), (names.node, 30_083));
                let mut bytes = elsewhere.bytes();
                let dropped = Verdict::Drop(DropReason::NoLocalBackend);
                assert_eq!(through(&tables, &mut bytes, UPLINK), dropped);
            }
        }
    }
}

#[test]
fn the_node_itself_answers_for_its_service() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 30_086));
            let mut bytes = request.bytes();
            // To the stack, from the client itself.
            assert_eq!(through(&tables, &mut bytes, UPLINK), Verdict::Stack);
            assert!(checksums_are_right(&bytes));
            let inside = make((names.client, 1000), (names.node, 8080));
            assert_eq!(bytes[12..], inside.bytes()[12..]);
            let answer = inside.reversed();
            let outside = request.reversed();
            assert_eq!(turns(&tables, LEAVING, &answer, &outside), Verdict::Stack);
            // Other answers of the node are left alone.
            let other = make((names.node, 22), (names.client, 1001));
            let mut bytes = other.bytes();
            assert_eq!(through(&tables, &mut bytes, LEAVING), Verdict::Stack);
            assert_eq!(bytes, other.bytes());
        }
    }
}

#[test]
fn connections_over_narrow_ways_have_short_segments() {
    for (names, header) in FAMILIES.iter().zip([20_u32, 40]) {
        let tables = tables();
        // The option in the place of twelve bytes of nothing.
        let with_mss = |sample: &Sample, size: u16| {
            let mut sample = sample.clone();
            sample.mss = Some(size);
            sample
        };
        let request = Sample::tcp_syn((names.client, 1000), (names.node, 30_081));
        let mut bytes = with_mss(&request, 1460).bytes();
        let verdict = through(&tables, &mut bytes, UPLINK);
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        assert!(checksums_are_right(&bytes));
        let at = 14 + header as usize + 20;
        assert_eq!(bytes[at..at + 4], with_most(1400 - header - 20));
        // Shorter ones stay.
        let mut bytes = with_mss(&request, 500).bytes();
        let _ = through(&tables, &mut bytes, UPLINK);
        assert_eq!(bytes[at..at + 4], with_most(500));
    }
}

fn with_most(size: u32) -> [u8; 4] {
    let [a, b] = (size as u16).to_be_bytes();
    [2, 4, a, b]
}

#[test]
fn pods_reach_services_by_packets() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            let request = make((names.other, 1000), (names.service, 80));
            let inside = make((names.other, 1000), (names.pod, 8080));
            assert_eq!(turns(&tables, OTHER, &request, &inside), DELIVER);
            let answer = make((names.pod, 8080), (names.other, 1000));
            let back = make((names.service, 80), (names.other, 1000));
            let deliver = Verdict::Deliver { ifindex: OTHER };
            assert_eq!(turns(&tables, POD, &answer, &back), deliver);
            // A pod itself: not with its own address.
            let request = make((names.pod, 1000), (names.service, 80));
            let mut bytes = request.bytes();
            assert_eq!(through(&tables, &mut bytes, POD), DELIVER);
            let asked = tables.flows.borrow();
            let back = asked
                .keys()
                .find(|key| key.destination == address(names.node));
            let port = back.unwrap().destination_port.host();
            drop(asked);
            let answer = make((names.pod, 8080), (names.node, port));
            let back = make((names.service, 80), (names.pod, 1000));
            assert_eq!(turns(&tables, POD, &answer, &back), DELIVER);
        }
    }
}

#[test]
fn who_leaves_has_the_node_s_address() {
    for names in &FAMILIES {
        for make in [Sample::tcp_syn, Sample::udp, Sample::sctp, Sample::echo] {
            let tables = tables();
            let request = make((names.pod, 1000), (names.client, 443));
            let mut bytes = request.bytes();
            assert_eq!(through(&tables, &mut bytes, POD), Verdict::Stack);
            assert_eq!(bytes, request.bytes());
            assert_eq!(through(&tables, &mut bytes, LEAVING), Verdict::Stack);
            let port = node_port(&tables);
            let outside = make((names.node, port), (names.client, 443));
            assert_eq!(turns(&tables, LEAVING, &request, &outside), Verdict::Stack);
            // The next one is not translated twice.
            let mut bytes = request.bytes();
            assert_eq!(through(&tables, &mut bytes, POD), Verdict::Stack);
            assert_eq!(bytes, request.bytes());
            let (answer, inside) = (outside.reversed(), request.reversed());
            assert_eq!(turns(&tables, UPLINK, &answer, &inside), DELIVER);
        }
        let tables = tables();
        // To who is inside, answers to who came in without translation, and the
        // node's own.
        for stays in [
            Sample::udp((names.pod, 1000), (names.far_node, 53)),
            Sample::tcp((names.pod, 80), (names.client, 1000)),
            Sample::echo((names.pod, 1000), (names.client, 0)).reversed_types(),
            Sample::udp((names.node, 1000), (names.client, 53)),
        ] {
            let mut bytes = stays.bytes();
            assert_eq!(through(&tables, &mut bytes, LEAVING), Verdict::Stack);
            assert_eq!(bytes, stays.bytes());
        }
        // What cannot be given another address does not leave.
        let gre = Sample {
            protocol: 47,
            ..Sample::udp((names.pod, 0), (names.client, 0))
        };
        let dropped = Verdict::Drop(DropReason::Protocol);
        assert_eq!(through(&tables, &mut gre.bytes(), LEAVING), dropped);
    }
}

#[test]
fn nobody_there_is_said_at_once() {
    for names in &FAMILIES {
        for make in KINDS {
            let tables = tables();
            for (from, request, reason) in [
                (
                    UPLINK,
                    make((names.client, 1), (names.node, 30_084)),
                    DropReason::NoBackends,
                ),
                (
                    POD,
                    make((names.pod, 1), (names.no_service, 80)),
                    DropReason::NoService,
                ),
                (
                    POD,
                    make((names.pod, 1), (names.service, 81)),
                    DropReason::NoService,
                ),
            ] {
                let mut bytes = request.bytes();
                let verdict = through(&tables, &mut bytes, from);
                assert_eq!(verdict, Verdict::Answer(reason));
                assert!(checksums_are_right(&bytes), "{bytes:02x?}");
                let [asked, answered] = [&request.bytes(), &bytes].map(|b| b[12..].to_vec());
                let ip = if names.set == 100 { 20 } else { 40 };
                let addresses = if names.set == 100 { 14 } else { 10 };
                let len = if names.set == 100 { 4 } else { 16 };
                // Back from where it was to.
                let (source, destination) = (addresses, addresses + len);
                assert_eq!(answered[source..][..len], asked[destination..][..len]);
                assert_eq!(answered[destination..][..len], asked[source..][..len]);
                if request.protocol == IPPROTO_TCP {
                    // Acknowledges the SYN and its 100 bytes.
                    assert_eq!(answered.len(), 2 + ip + 20);
                    assert_eq!(answered[2 + ip + 8..][..4], [0, 0, 0, 102]);
                    assert_eq!(answered[2 + ip + 13], 0x14);
                } else {
                    let kind = if names.set == 100 { [3, 3] } else { [1, 4] };
                    assert_eq!(answered[2 + ip..][..2], kind);
                    // What was asked: header and eight bytes, or sixteen.
                    let quoted = if names.set == 100 { ip + 8 } else { ip + 16 };
                    assert_eq!(answered[2 + ip + 8..], asked[2..][..quoted]);
                }
            }
        }
    }
}

#[test]
fn source_ranges_hold() {
    for names in &FAMILIES {
        let tables = tables();
        let from = |client| {
            let mut bytes = Sample::udp((client, 1), (names.node, 30_085)).bytes();
            through(&tables, &mut bytes, UPLINK)
        };
        assert_eq!(from(names.client), Verdict::Drop(DropReason::SourceRange));
        assert_eq!(from(names.far_node), DELIVER);
    }
}

#[test]
fn flows_outlive_their_service_and_datagrams_their_backend() {
    for names in &FAMILIES {
        let mut tables = tables();
        let connection = Sample::tcp_syn((names.client, 1000), (names.node, 30_082));
        let datagram = Sample::udp((names.client, 1000), (names.node, 30_082));
        for sample in [&connection, &datagram] {
            assert_eq!(through(&tables, &mut sample.bytes(), UPLINK), DELIVER);
        }
        // All backends go.
        tables.backends.clear();
        tables
            .frontends
            .values_mut()
            .for_each(|row| *row = Frontend::new(row.set(), 0, 0));
        let next = Sample::tcp((names.client, 1000), (names.node, 30_082));
        assert_eq!(through(&tables, &mut next.bytes(), UPLINK), DELIVER);
        let refused = Verdict::Answer(DropReason::NoBackends);
        assert_eq!(through(&tables, &mut datagram.bytes(), UPLINK), refused);
        // A new connection of the same ends after the old one ended.
        let end = Sample::tcp_fin((names.client, 1000), (names.node, 30_082));
        assert_eq!(through(&tables, &mut end.bytes(), UPLINK), DELIVER);
        assert_eq!(through(&tables, &mut connection.bytes(), UPLINK), refused);
    }
}

/// Who begins too many flows is refused, and nobody else is; both families of a
/// pod are one.
#[test]
fn a_pod_begins_as_many_flows_as_it_may() {
    let mut tables = tables();
    tables.flows_each = Some(3);
    let leave = |pod: &str, client: &str, port| {
        let mut bytes = Sample::udp((pod, port), (client, 443)).bytes();
        through(&tables, &mut bytes, LEAVING)
    };
    let [v4, v6] = &FAMILIES;
    for (names, port) in [(v4, 1), (v6, 1), (v4, 2)] {
        assert_eq!(leave(names.pod, names.client, port), Verdict::Stack);
    }
    for names in &FAMILIES {
        let refused = Verdict::Drop(DropReason::FlowShare);
        assert_eq!(leave(names.pod, names.client, 3), refused);
        assert_eq!(leave(names.other, names.client, 3), Verdict::Stack);
    }
    // What has begun goes on.
    assert_eq!(leave(v4.pod, v4.client, 1), Verdict::Stack);
}
