//! The same packets through the loaded programs and through the same code in
//! user space: the same verdict, the same bytes. Needs root.

mod parts;
mod policies;

use std::net::IpAddr;
use std::os::fd::AsFd;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ripstop_abi::test_packets::{MemoryTables, Sample};
use ripstop_abi::{
    Address, Backend, BackendKey, BackendRow, Config as Constants, DropReason, Endpoint,
    FLAG_HOST_PORT, FLAG_LOCAL, FLAG_RANGES, FlowPorts, Frontend, PacketBytes, Port, RANGE_OUTSIDE,
    RANGE_PODS, RANGE_SERVICES, Route, RouteKey, ServiceAddress, SourceKey, Uplink, Verdict,
    from_outside, from_pod, to_outside, to_pod,
};

use super::config::Limits;
use super::maps::Maps;
use super::programs::{FROM_OUTSIDE, FROM_POD, Programs, TO_OUTSIDE, TO_POD};
use super::{readback, sys};

/// Where the kernel lets test packets come from.
const LOOPBACK: u32 = 1;

const DELIVER: Verdict = Verdict::Deliver { ifindex: LOOPBACK };

/// Of the node, for translated flows.
const PORT: u16 = 2000;

const ONE_PORT: FlowPorts = FlowPorts::without_gaps(PORT, 1);

/// Programs over tables, and tables in memory with the same rows.
struct Both {
    maps: Maps,
    programs: Programs,
    memory: MemoryTables,
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

const CLIENTS: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
const NODES: [&str; 2] = ["172.30.1.11", "fd00:30:1::b"];
const PODS: [&str; 2] = ["10.244.1.2", "fd00:244:1::2"];
const NEIGHBOURS: [&str; 2] = ["10.244.1.3", "fd00:244:1::3"];
const SERVICES: [&str; 2] = ["10.96.0.5", "fd00:96::5"];
const FAR_PODS: [&str; 2] = ["10.244.2.2", "fd00:244:2::2"];
const GATEWAYS: [&str; 2] = ["172.30.1.12", "fd00:30:1::c"];

fn pod_network(family: usize) -> &'static str {
    ["10.244.0.0", "fd00:244::"][family]
}

fn range_key(text: &str, bits: u32) -> RouteKey {
    let address = address(text);
    let mapped = if address.is_v4() { 96 } else { 0 };
    RouteKey {
        prefix_len: mapped + bits,
        address,
    }
}

impl Both {
    /// Translated flows get the one port that there is: what the kernel chooses
    /// by chance cannot be told beforehand.
    fn new() -> Self {
        let maps = Maps::create(&Limits::default()).unwrap();
        let constants = Constants {
            node_netns: 0,
            ports: ONE_PORT,
            own_ports: ONE_PORT,
            says_why: 1,
            reserved: 0,
        };
        let programs = Programs::load(&maps, &constants).unwrap();
        let mut both = Self {
            maps,
            programs,
            memory: MemoryTables {
                own: NODES.map(address).into(),
                ports: ONE_PORT,
                ..MemoryTables::default()
            },
        };
        for node in NODES.map(address) {
            both.maps.policy.own.put(node, 1, String::new).unwrap();
        }
        let uplink = Uplink::new(address(NODES[0]), address(NODES[1]));
        for ifindex in [0, LOOPBACK] {
            both.maps.uplinks.put(ifindex, uplink, String::new).unwrap();
            both.memory.uplinks.insert(ifindex, uplink);
        }
        // Their link is the one by which test packets come.
        let endpoint = Endpoint::new(LOOPBACK, [2, 0, 0, 0, 0, 7]);
        for family in 0..2 {
            // The pods have a port of the node; their neighbours have none.
            let mut with_ports = endpoint;
            with_ports.set_renumbered();
            for (pod, row) in [(PODS, with_ports), (NEIGHBOURS, endpoint)] {
                let pod = address(pod[family]);
                both.maps.endpoints.put(pod, row, String::new).unwrap();
                both.memory.endpoints.insert(pod, row);
            }
            let prefix_len = [96 + 24, 64][family];
            let network = [address("10.244.2.0"), address("fd00:244:2::")][family];
            let key = RouteKey {
                prefix_len,
                address: network,
            };
            let route = Route {
                ifindex: 2,
                mtu: 1400,
                gateway: address(GATEWAYS[family]),
            };
            both.maps.routes.put(key, route, String::new).unwrap();
            both.memory.routes.push((key, route));
            let services = ["10.96.0.0", "fd00:96::"][family];
            let everything = ["0.0.0.0", "::"][family];
            for (text, bits, range) in [
                (pod_network(family), [16, 48], RANGE_PODS),
                (services, [16, 112], RANGE_SERVICES),
                (everything, [0, 0], RANGE_OUTSIDE),
            ] {
                let key = range_key(text, bits[family]);
                both.maps.ranges.put(key, range, String::new).unwrap();
                both.memory.ranges.push((key, range));
            }
            let kinds = [
                (80, PODS[family], FLAG_HOST_PORT | FLAG_LOCAL),
                (81, PODS[family], 0),
                (82, FAR_PODS[family], 0),
                (83, PODS[family], FLAG_RANGES),
            ];
            for protocol in [6, 17, 132] {
                for (port, backend, flags) in kinds {
                    both.serve(NODES[family], port, protocol, flags, &[backend]);
                }
                both.serve(NODES[family], 84, protocol, 0, &[]);
                both.serve(SERVICES[family], 80, protocol, 0, &[PODS[family]]);
            }
        }
        both
    }

    /// A frontend with one backend, or none, in both.
    fn serve(&mut self, address_of: &str, port: u16, protocol: u8, flags: u16, to: &[&str]) {
        let set = 1 + self.memory.frontends.len() as u32;
        let at = ServiceAddress::new(address(address_of), Port::from_host(port), protocol);
        let row = Frontend::new(set, to.len() as u16, flags).with_outside(to.len() as u16, 0);
        let backends: Vec<_> = to
            .iter()
            .map(|to| Backend::new(address(to), Port::from_host(8080)))
            .collect();
        let ids = &[1][..backends.len()];
        let with_slots = row.with_slots(ids);
        let frontends = &self.maps.frontends;
        frontends.put(&at, &with_slots, String::new).unwrap();
        for backend in &backends {
            let key = BackendKey { set, id: 1 };
            let backend = BackendRow::new(*backend);
            self.maps.backends.put(&key, &backend, String::new).unwrap();
        }
        if flags & FLAG_RANGES != 0 {
            // Clients with the first client's network, of either family.
            for (client, bits) in CLIENTS.into_iter().zip([96 + 25, 65]) {
                let range = range_key(client, bits - if bits > 96 { 96 } else { 0 });
                let key = SourceKey {
                    prefix_len: 32 + range.prefix_len,
                    set: set.to_be(),
                    address: range.address,
                };
                self.maps.sources.put(&key, &1, String::new).unwrap();
                self.memory.sources.push((set, range));
            }
        }
        self.memory.serve(at, row, &backends);
    }

    /// Forgets all flows: there is one port.
    fn forget(&self) {
        for (key, _) in self.maps.flows.rows().unwrap() {
            self.maps.flows.remove(&key).unwrap();
        }
        self.memory.flows.borrow_mut().clear();
    }

    /// The packet through one program, both ways.
    pub(super) fn agree(&self, program: &str, original: &[u8], segment_size: u32) -> Verdict {
        self.agree_from(program, original, segment_size, 0)
    }

    /// `came_by`: for packets that go out, the link by which they came in.
    pub(super) fn agree_from(
        &self,
        program: &str,
        original: &[u8],
        segment_size: u32,
        came_by: u32,
    ) -> Verdict {
        self.became(program, original, segment_size, came_by).0
    }

    /// Likewise; what the packet became, too.
    fn became(
        &self,
        program: &str,
        original: &[u8],
        segment_size: u32,
        came_by: u32,
    ) -> (Verdict, Vec<u8>) {
        self.memory.now.set(readback::now());
        let mut bytes = original.to_vec();
        let mut packet = PacketBytes {
            bytes: &mut bytes,
            link: [0; 6],
            ifindex: LOOPBACK,
            segment_size,
            came_by,
            socket: None,
        };
        let verdict = match program {
            FROM_POD => from_pod(&mut packet, &self.memory).verdict(),
            FROM_OUTSIDE => from_outside(&mut packet, &self.memory).verdict(),
            TO_POD => to_pod(&mut packet, &self.memory).verdict(),
            _ => to_outside(&mut packet, &self.memory).verdict(),
        };
        // TC_ACT_UNSPEC, TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT of linux/pkt_cls.h.
        let expected = match verdict {
            Verdict::Stack => -1,
            Verdict::StackAtOnce => 0,
            Verdict::Deliver { .. }
            | Verdict::Forward { .. }
            | Verdict::Route { .. }
            | Verdict::Answer(_) => 7,
            Verdict::Drop(_) => 2,
        };
        let loaded = self.programs.get(program);
        let (result, after) = match sys::test_run(loaded.as_fd(), original, segment_size, came_by) {
            // The kernel takes no test packet without a whole IP header.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && original.len() < 54 => {
                return (verdict, bytes);
            }
            outcome => outcome.unwrap(),
        };
        assert_eq!(
            result, expected,
            "{program}: {verdict:?} of {original:02x?}"
        );
        // Half a translation may be in what is dropped.
        if !matches!(verdict, Verdict::Drop(_)) {
            assert_eq!(after, bytes, "{program}: {verdict:?} of {original:02x?}");
        }
        (verdict, bytes)
    }

    fn all_agree(&self, original: &[u8], segment_size: u32) {
        for program in [FROM_OUTSIDE, FROM_POD, TO_OUTSIDE] {
            let _ = self.agree(program, original, segment_size);
        }
    }
}

#[test]
fn kernels_without_set_retval_get_programs_without_it() {
    let maps = Maps::create(&Limits::default()).unwrap();
    let constants = |says_why| Constants {
        node_netns: 0,
        ports: ONE_PORT,
        own_ports: ONE_PORT,
        says_why,
        reserved: 0,
    };
    let walked = |says_why| {
        let programs = Programs::load(&maps, &constants(says_why)).unwrap();
        let stats = programs.stats().unwrap();
        let stats = stats.iter().find(|stats| stats.name == "connect4");
        stats.unwrap().verified_instructions.unwrap()
    };
    assert!(walked(0) < walked(1));
}

#[test]
fn every_way_of_a_packet() {
    let both = Both::new();
    for family in 0..2 {
        let [client, node, pod, neighbour, far] =
            [CLIENTS, NODES, PODS, NEIGHBOURS, FAR_PODS].map(|addresses| addresses[family]);
        for make in [Sample::tcp, Sample::udp] {
            let run = |program, sample: &Sample| both.agree(program, &sample.bytes(), 0);
            let to_pod = make((client, 1000), (pod, 8080));
            assert_eq!(run(FROM_OUTSIDE, &to_pod), DELIVER);
            let spoofed = Verdict::Drop(DropReason::Spoofed);
            assert_eq!(run(FROM_POD, &to_pod), spoofed);
            let to_pod = make((neighbour, 1000), (pod, 8080));
            assert_eq!(run(FROM_POD, &to_pod), DELIVER);
            let last_hop = Sample { hops: 1, ..to_pod };
            assert_eq!(run(FROM_POD, &last_hop), Verdict::Stack);
            let to_far = make((pod, 9000), (far, 53));
            assert!(matches!(
                run(FROM_POD, &to_far),
                Verdict::Forward { ifindex: 2, .. }
            ));
            let too_long = Sample {
                payload: vec![0; 1400],
                ..to_far
            };
            assert_eq!(run(FROM_POD, &too_long), Verdict::Stack);
            let cut_up = both.agree(FROM_POD, &too_long.bytes(), 1300);
            assert!(matches!(cut_up, Verdict::Forward { .. }));
            // In by the host port, out again under its name.
            let request = make((client, 1000), (node, 80));
            assert_eq!(run(FROM_OUTSIDE, &request), DELIVER);
            let answer = make((pod, 8080), (client, 1000));
            assert_eq!(run(FROM_POD, &answer), Verdict::Route { ifindex: LOOPBACK });
            let to_nobody = make((pod, 8080), (node, 22));
            assert_eq!(run(FROM_POD, &to_nobody), Verdict::Stack);
        }
        for protocol in [1, 58] {
            let ping = Sample {
                protocol,
                ..Sample::tcp((neighbour, 0), (pod, 0))
            };
            let delivered = both.agree(FROM_POD, &ping.bytes(), 0);
            assert_eq!(delivered, DELIVER);
        }
    }
    let no_checksum = Sample {
        no_checksum: true,
        ..Sample::udp((CLIENTS[0], 1000), (NODES[0], 80))
    };
    both.all_agree(&no_checksum.bytes(), 0);
}

#[test]
fn errors_about_flows() {
    let both = Both::new();
    for family in 0..2 {
        let [client, node, pod, far] =
            [CLIENTS, NODES, PODS, FAR_PODS].map(|addresses| addresses[family]);
        let kinds = [[[3, 3], [3, 4], [11, 0]], [[1, 4], [2, 0], [3, 0]]][family];
        for make in [Sample::tcp_syn, Sample::udp, Sample::sctp] {
            for (source_port, error) in (1000..).zip(kinds) {
                let run = |program, sample: &Sample| both.agree(program, &sample.bytes(), 0);
                // Led to another node: the backend's error goes to the client, and
                // one about an answer to the backend.
                let request = make((client, source_port), (node, 82));
                let led = run(FROM_OUTSIDE, &request);
                assert!(matches!(led, Verdict::Forward { .. }), "{led:?}");
                let inside = make((node, PORT), (far, 8080));
                let out = Verdict::Route { ifindex: LOOPBACK };
                assert_eq!(run(FROM_OUTSIDE, &Sample::error(far, error, &inside)), out);
                let about_answer = Sample::error(client, error, &request.reversed());
                let led = run(FROM_OUTSIDE, &about_answer);
                assert!(matches!(led, Verdict::Forward { .. }), "{led:?}");
                both.forget();
                // From a pod here, about what came in.
                let request = make((client, source_port), (node, 80));
                assert_eq!(run(FROM_OUTSIDE, &request), DELIVER);
                let inside = make((client, source_port), (pod, 8080));
                assert_eq!(run(FROM_POD, &Sample::error(pod, error, &inside)), out);
                both.forget();
                // About what left the cluster.
                let request = make((pod, source_port), (client, 443));
                assert_eq!(run(TO_OUTSIDE, &request), Verdict::Stack);
                let outside = make((node, PORT), (client, 443));
                let told = run(FROM_OUTSIDE, &Sample::error(client, error, &outside));
                assert_eq!(told, DELIVER);
                let told = run(TO_OUTSIDE, &Sample::error(pod, error, &request.reversed()));
                assert_eq!(told, Verdict::Stack);
                both.forget();
            }
        }
    }
}

/// A pod begins something straight to a backend, from a port from which a service
/// led it there before.
#[test]
fn what_goes_to_a_service_and_what_goes_straight_there() {
    let both = Both::new();
    for family in 0..2 {
        let [pod, neighbour, service] =
            [PODS, NEIGHBOURS, SERVICES].map(|addresses| addresses[family]);
        for make in [Sample::tcp_syn, Sample::udp, Sample::sctp] {
            let run = |sample: &Sample| both.agree(FROM_POD, &sample.bytes(), 0);
            let later = |sample: &Sample| Sample {
                flags: 0x10,
                ..sample.clone()
            };
            let led = make((neighbour, 1000), (service, 80));
            let straight = make((neighbour, 1000), (pod, 8080));
            let aside = make((neighbour, PORT), (pod, 8080));
            assert_eq!(run(&led), DELIVER);
            for sample in [&straight, &later(&straight), &led, &later(&led)] {
                assert_eq!(run(sample), DELIVER);
                assert_eq!(run(&later(&aside.reversed())), DELIVER);
                assert_eq!(run(&later(&straight.reversed())), DELIVER);
            }
            both.forget();
        }
    }
}

#[test]
fn whatever_comes() {
    let both = Both::new();
    let addresses: Vec<_> = [CLIENTS, NODES, PODS, NEIGHBOURS, FAR_PODS]
        .concat()
        .into_iter()
        .chain(["fe80::1", "0.0.0.0"])
        .collect();
    let end = || {
        (
            prop::sample::select(addresses.clone()),
            prop::sample::select(vec![80, 8080, 1000, 1001]),
        )
    };
    let sample = (
        (end(), end()),
        prop::sample::select(vec![6, 17, 0, 1, 44, 58, 132]),
        0..4_u8,
        prop::sample::select(vec![0, 0x4000, 0x2000, 1]),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..64),
        // An error about it, from whom.
        prop::option::weighted(0.3, end()),
    );
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let len = 15..200_usize;
    let segment_size = prop::sample::select(vec![0_u32, 0, 0, 1300, 1349, 0xffff]);
    let config = ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..Default::default()
    };
    let outcome = TestRunner::new(config).run(
        &(sample, flips, len, segment_size),
        |(
            ((source, destination), protocol, hops, fragment, no_checksum, payload, error),
            flips,
            len,
            segment_size,
        )| {
            let sample = Sample {
                protocol,
                hops,
                fragment,
                no_checksum,
                payload,
                ..Sample::tcp(source, destination)
            };
            let mut bytes = match error {
                // Both of one family.
                Some((from, kind)) if sample.source.0.is_ipv4() != from.contains(':') => {
                    let kind = [kind as u8 % 13, (kind >> 8) as u8];
                    Sample::error(from, kind, &sample).bytes()
                }
                _ => sample.bytes(),
            };
            for (at, with) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            bytes.truncate(len);
            both.all_agree(&bytes, segment_size);
            Ok(())
        },
    );
    outcome.unwrap();
}
