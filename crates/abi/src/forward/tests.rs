use std::vec;
use std::vec::Vec;

use core::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::test_packets::{MemoryTables, Sample, checksums_are_right, parts};
use crate::{
    Backend, FLAG_HOST_PORT, FLAG_LOCAL, Frontend, PacketBytes, Port, RouteKey, ServiceAddress,
};

const UPLINK: u32 = 2;
const POD: u32 = 7;
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const NEIGHBOUR: u32 = 8;

/// Addresses of one family.
struct Names {
    client: &'static str,
    node: &'static str,
    pod: &'static str,
    neighbour: &'static str,
    far_pod: &'static str,
    far_node: &'static str,
}

const FAMILIES: [Names; 2] = [
    Names {
        client: "192.0.2.9",
        node: "172.30.1.11",
        pod: "10.244.1.2",
        neighbour: "10.244.1.3",
        far_pod: "10.244.2.2",
        far_node: "172.30.1.12",
    },
    Names {
        client: "2001:db8::9",
        node: "fd00:30:1::b",
        pod: "fd00:244:1::2",
        neighbour: "fd00:244:1::3",
        far_pod: "fd00:244:2::2",
        far_node: "fd00:30:1::c",
    },
];

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// One pod with a host port for TCP and UDP, a neighbour, one route of 1,400
/// bytes.
fn tables() -> MemoryTables {
    let mut tables = MemoryTables::default();
    let mut endpoint = Endpoint::new(POD, POD_MAC);
    endpoint.set_renumbered();
    for (names, bits) in FAMILIES.iter().zip([96 + 24, 64]) {
        tables.endpoints.insert(address(names.pod), endpoint);
        let neighbour = Endpoint::new(NEIGHBOUR, [2, 0, 0, 0, 0, 8]);
        tables.endpoints.insert(address(names.neighbour), neighbour);
        let key = RouteKey {
            prefix_len: bits,
            address: address(names.far_pod),
        };
        let route = Route {
            ifindex: UPLINK,
            mtu: 1400,
            gateway: address(names.far_node),
        };
        tables.routes.push((key, route));
        for (set, protocol) in [(bits, IPPROTO_TCP), (bits + 1, IPPROTO_UDP)] {
            let key = ServiceAddress::new(address(names.node), Port::from_host(80), protocol);
            let backend = Backend::new(address(names.pod), Port::from_host(8080));
            let frontend = Frontend::new(set, 1, FLAG_HOST_PORT | FLAG_LOCAL).with_outside(1, 0);
            tables.serve(key, frontend, &[backend]);
        }
    }
    tables
}

fn packet(bytes: &mut Vec<u8>, ifindex: u32, segment_size: u32) -> PacketBytes<'_> {
    PacketBytes {
        bytes,
        link: [0; 6],
        ifindex,
        segment_size,
        came_by: 0,
        socket: None,
    }
}

/// From a pod with host ports, whose address it is or the first one; what becomes
/// of it.
fn sent(tables: &MemoryTables, sample: &Sample) -> (Verdict, Vec<u8>) {
    let mut bytes = sample.bytes();
    let sender = tables.endpoints.get(&Address::from(sample.source.0));
    let link = sender.map_or(POD, |endpoint| endpoint.ifindex);
    let verdict = from_pod(&mut packet(&mut bytes, link, 0), tables).verdict();
    (verdict, bytes)
}

fn received(tables: &MemoryTables, sample: &Sample) -> (Verdict, Vec<u8>) {
    let mut bytes = sample.bytes();
    let verdict = from_outside(&mut packet(&mut bytes, UPLINK, 0), tables).verdict();
    (verdict, bytes)
}

/// That nothing is done about it, also if a pod sends it.
fn is_left_alone(tables: &MemoryTables, sample: &Sample) {
    let unchanged = (Verdict::Stack, sample.bytes());
    assert_eq!(received(tables, sample), unchanged, "{sample:?}");
    let family = usize::from(sample.source.0.is_ipv6());
    let source = FAMILIES[family].neighbour.parse().unwrap();
    let by_pod = Sample {
        source: (source, sample.source.1),
        ..sample.clone()
    };
    let unchanged = (Verdict::Stack, by_pod.bytes());
    assert_eq!(sent(tables, &by_pod), unchanged, "{by_pod:?}");
}

#[test]
fn local_pods_get_their_packets() {
    for names in &FAMILIES {
        for protocol in [IPPROTO_TCP, IPPROTO_UDP, 58] {
            let sample = |source| Sample {
                protocol,
                ..Sample::tcp((source, 1000), (names.pod, 8080))
            };
            let delivered = |sample: &Sample| {
                let mut expected = Sample {
                    hops: 63,
                    ..sample.clone()
                }
                .bytes();
                expected[..6].copy_from_slice(&POD_MAC);
                expected[6..12].copy_from_slice(&[0xee; 6]);
                (Verdict::Deliver { ifindex: POD }, expected)
            };
            let near = sample(names.neighbour);
            assert_eq!(sent(&tables(), &near), delivered(&near));
            let far = sample(names.client);
            assert_eq!(received(&tables(), &far), delivered(&far));
        }
    }
}

#[test]
fn last_hops_and_unknown_destinations_are_for_the_stack() {
    for names in &FAMILIES {
        for hops in [0, 1] {
            let sample = Sample {
                hops,
                ..Sample::tcp((names.client, 1), (names.pod, 80))
            };
            is_left_alone(&tables(), &sample);
        }
        is_left_alone(
            &tables(),
            &Sample::tcp((names.pod, 8081), (names.client, 1)),
        );
        is_left_alone(&tables(), &Sample::tcp((names.client, 1), (names.node, 81)));
        let icmp = Sample {
            protocol: 1,
            ..Sample::tcp((names.client, 1), (names.node, 80))
        };
        is_left_alone(&tables(), &icmp);
    }
}

#[test]
fn frames_for_others_are_left_alone() {
    for names in &FAMILIES {
        let sample = Sample::tcp((names.client, 1), (names.pod, 80));
        let mut bytes = sample.bytes();
        let mut other = packet(&mut bytes, UPLINK, 0);
        other.link = [2; 6];
        assert_eq!(
            from_outside(&mut other, &tables()).verdict(),
            Verdict::Stack
        );
        assert_eq!(bytes, sample.bytes());
    }
}

/// As of a frame for everybody on the link, or in a VLAN.
#[test]
fn a_pod_calls_to_its_link_only() {
    let call = |source, destination| {
        let mut bytes = Sample::udp((source, 1), (destination, 5353)).bytes();
        let mut called = packet(&mut bytes, NEIGHBOUR, 0);
        called.link = [2; 6];
        from_pod(&mut called, &tables()).verdict()
    };
    let spoofed = Verdict::Drop(DropReason::Spoofed);
    for (names, (group, nobody)) in FAMILIES
        .iter()
        .zip([("224.0.0.251", "0.0.0.0"), ("ff02::fb", "::")])
    {
        assert_eq!(call(names.neighbour, group), Verdict::Stack);
        assert_eq!(call(nobody, group), Verdict::Stack);
        assert_eq!(call(names.pod, group), spoofed);
        for to in [names.pod, names.node, names.client] {
            assert_eq!(call(names.neighbour, to), spoofed);
        }
    }
}

#[test]
fn a_pod_speaks_no_tunnel_with_nodes() {
    let mut tables = tables();
    for names in &FAMILIES {
        let key = RouteKey {
            prefix_len: 128,
            address: address(names.node),
        };
        tables.ranges.push((key, RANGE_NODE));
        for (to, port, refused) in [
            (names.node, 4789, true),
            (names.node, 4788, false),
            (names.client, 4789, false),
        ] {
            let mut bytes = Sample::udp((names.neighbour, 1), (to, port)).bytes();
            let mut sent = packet(&mut bytes, NEIGHBOUR, 0);
            let verdict = from_pod(&mut sent, &tables).verdict();
            let spoofed = verdict == Verdict::Drop(DropReason::Spoofed);
            assert_eq!(spoofed, refused, "{to}:{port}");
        }
    }
}

#[test]
fn headers_that_concern_routers_are_for_the_stack() {
    let [v4, v6] = &FAMILIES;
    let mut options = Sample::tcp((v4.neighbour, 1), (v4.pod, 80)).bytes();
    options[14] = 0x46;
    let hop_by_hop = Sample {
        protocol: 0,
        ..Sample::tcp((v6.neighbour, 1), (v6.pod, 80))
    }
    .bytes();
    let link_local = Sample::tcp(("fe80::1", 1), (v6.pod, 80)).bytes();
    for mut bytes in [options, hop_by_hop, link_local] {
        let verdict = from_pod(&mut packet(&mut bytes, NEIGHBOUR, 0), &tables()).verdict();
        assert_eq!(verdict, Verdict::Stack);
    }
}

#[test]
fn a_pod_sends_by_its_own_address() {
    for names in &FAMILIES {
        for source in [names.client, names.node, names.neighbour, names.far_pod] {
            for (to, hops) in [(names.pod, 64), (names.far_pod, 64), (names.client, 1)] {
                let sample = Sample {
                    hops,
                    ..Sample::udp((source, 1), (to, 80))
                };
                let mut bytes = sample.bytes();
                let verdict = from_pod(&mut packet(&mut bytes, POD, 0), &tables());
                let spoofed = Verdict::Drop(DropReason::Spoofed);
                assert_eq!(verdict.verdict(), spoofed, "{sample:?}");
            }
        }
    }
}

#[test]
fn other_nodes_pods_get_what_fits() {
    for (names, header) in FAMILIES.iter().zip([20, 40]) {
        let of_len = |len: usize| Sample {
            payload: vec![1; len - header - 8],
            ..Sample::udp((names.pod, 5000), (names.far_pod, 53))
        };
        let forward = Verdict::Forward {
            ifindex: UPLINK,
            gateway: address(names.far_node),
        };
        let sample = of_len(1400);
        let expected = Sample {
            hops: 63,
            ..sample.clone()
        }
        .bytes();
        assert_eq!(sent(&tables(), &sample), (forward, expected));
        let sample = of_len(1401);
        assert_eq!(sent(&tables(), &sample), (Verdict::Stack, sample.bytes()));
    }
}

#[test]
fn large_packets_are_judged_by_their_segments() {
    for (names, header) in FAMILIES.iter().zip([20, 40]) {
        // Twelve bytes of TCP options.
        for (sample, transport) in [
            (Sample::tcp((names.pod, 5000), (names.far_pod, 53)), 32),
            (Sample::udp((names.pod, 5000), (names.far_pod, 53)), 8),
        ] {
            let mut bytes = Sample {
                payload: vec![1; 9000],
                ..sample
            }
            .bytes();
            let room = 1400 - header - transport;
            let verdict = from_pod(&mut packet(&mut bytes, POD, room + 1), &tables()).verdict();
            assert_eq!(verdict, Verdict::Stack);
            let verdict = from_pod(&mut packet(&mut bytes, POD, room), &tables()).verdict();
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        }
    }
}

#[test]
fn host_ports_lead_in_and_answers_out() {
    for names in &FAMILIES {
        for make in [Sample::tcp, Sample::udp] {
            let tables = tables();
            let request = make((names.client, 1000), (names.node, 80));
            let (verdict, bytes) = received(&tables, &request);
            assert_eq!(verdict, Verdict::Deliver { ifindex: POD });
            assert!(checksums_are_right(&bytes));
            let mut expected = Sample {
                hops: 63,
                ..make((names.client, 1000), (names.pod, 8080))
            }
            .bytes();
            expected[..12].copy_from_slice(&bytes[..12]);
            assert_eq!(bytes, expected);

            let answer = make((names.pod, 8080), (names.client, 1000));
            let (verdict, bytes) = sent(&tables, &answer);
            assert_eq!(verdict, Verdict::Route { ifindex: UPLINK });
            let expected = Sample {
                hops: 63,
                ..make((names.node, 80), (names.client, 1000))
            };
            assert_eq!(bytes, expected.bytes());
        }
    }
}

#[test]
fn answers_to_pods_take_their_route() {
    for names in &FAMILIES {
        let tables = tables();
        let _ = received(
            &tables,
            &Sample::tcp((names.far_pod, 1000), (names.node, 80)),
        );
        let (verdict, bytes) = sent(
            &tables,
            &Sample::tcp((names.pod, 8080), (names.far_pod, 1000)),
        );
        let gateway = address(names.far_node);
        assert_eq!(
            verdict,
            Verdict::Forward {
                ifindex: UPLINK,
                gateway
            }
        );
        let expected = Sample {
            hops: 63,
            ..Sample::tcp((names.node, 80), (names.far_pod, 1000))
        };
        assert_eq!(bytes, expected.bytes());
    }
}

#[test]
fn a_missing_checksum_stays_missing() {
    let names = &FAMILIES[0];
    let request = Sample {
        no_checksum: true,
        ..Sample::udp((names.client, 1), (names.node, 80))
    };
    let (verdict, bytes) = received(&tables(), &request);
    assert_eq!(verdict, Verdict::Deliver { ifindex: POD });
    assert_eq!(bytes[40..42], [0, 0]);
    assert!(checksums_are_right(&bytes));
}

#[test]
fn parts_are_delivered_and_those_of_nothing_known_left_alone() {
    for names in &FAMILIES {
        let cut = |to, port| {
            let whole = Sample::udp((names.client, 1), (to, port));
            parts(&whole.bytes(), 64, 1)
        };
        let tables = tables();
        let came_in =
            |part: &mut Vec<u8>| from_outside(&mut packet(part, UPLINK, 0), &tables).verdict();
        for mut part in cut(names.pod, 80) {
            assert_eq!(came_in(&mut part), Verdict::Deliver { ifindex: POD });
        }
        let mut later = cut(names.node, 80).swap_remove(1);
        let before = later.clone();
        assert_eq!(came_in(&mut later), Verdict::Stack);
        assert_eq!(later, before);
    }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let names: Vec<&'static str> = FAMILIES
        .iter()
        .flat_map(|n| [n.client, n.node, n.pod, n.far_pod, n.far_node])
        .collect();
    let end = || {
        (
            prop::sample::select(names.clone()),
            prop::sample::select(vec![80, 8080, 1000]),
        )
    };
    let protocol = prop::sample::select(vec![IPPROTO_TCP, IPPROTO_UDP, 0, 1, 44, 58]);
    let fragment = prop::sample::select(vec![0, 0x4000, 0x2000, 1]);
    (
        end(),
        end(),
        protocol,
        0..4_u8,
        fragment,
        prop::collection::vec(any::<u8>(), 0..64),
    )
        .prop_map(
            |(source, destination, protocol, hops, fragment, payload)| Sample {
                protocol,
                hops,
                fragment,
                payload,
                ..Sample::tcp(source, destination)
            },
        )
}

proptest! {
    /// Whatever comes, however short: no panic, and what is left to the stack is
    /// as it came.
    #[test]
    fn hostile_bytes(
        sample in any_sample(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in 0..160_usize,
        segment_size in prop::sample::select(vec![0_u32, 1, 1300, 0xffff]),
    ) {
        let mut original = sample.bytes();
        for (at, with) in flips {
            let at = at.index(original.len());
            original[at] ^= with;
        }
        original.truncate(len);
        let tables = tables();
        for hook in 0..3 {
            let mut bytes = original.clone();
            // With a host port and without.
            let link = if hook == 0 { POD } else { NEIGHBOUR };
            let mut packet = packet(&mut bytes, link, segment_size);
            let verdict = match hook {
                0 | 1 => from_pod(&mut packet, &tables).verdict(),
                _ => from_outside(&mut packet, &tables).verdict(),
            };
            if verdict == Verdict::Stack {
                prop_assert_eq!(&bytes, &original);
            }
        }
    }
}
