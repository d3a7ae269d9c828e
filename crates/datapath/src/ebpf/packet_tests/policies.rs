//! Random policies and histories of packets: the kernel and user space decide the
//! same of each, and remember the same.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ripstop_abi::test_packets::Sample;
use ripstop_abi::{
    CLASS_V4, CLASS_V6, ClassKey, DropReason, NO_POLICY, Outcome, POLICY_OBSERVES, POLICY_REJECTS,
    PairKey, PairRow, Place, PolicyPod, PortNode, Verdict,
};

use super::super::programs::{FROM_OUTSIDE, FROM_POD, TO_OUTSIDE, TO_POD};
use super::range_key;
use super::{
    Both, CLIENTS, DELIVER, FAR_PODS, LOOPBACK, NEIGHBOURS, NODES, PODS, SERVICES, address,
};

const PROGRAMS: [&str; 4] = [FROM_POD, FROM_OUTSIDE, TO_POD, TO_OUTSIDE];
const SIDES: [u64; 3] = [NO_POLICY, 100, 101];
const CLASSES: [u64; 4] = [CLASS_V4, CLASS_V6, 50, 51];

/// The rows of one moment.
#[derive(Clone, Debug)]
struct Rules {
    /// Ingress and egress of the pods and their neighbours; closed if there is
    /// none.
    pods: [Option<(usize, usize)>; 2],
    /// Of the outside, the far pods and the neighbours.
    classes: [usize; 3],
    /// For each of two sides and of the classes, cells as [`cell`] takes them; the
    /// pair may be missing.
    pairs: Vec<Option<[u8; 4]>>,
    rejects: bool,
}

fn rules() -> impl Strategy<Value = Rules> {
    let pod = || prop::option::weighted(0.9, (0..SIDES.len(), 0..SIDES.len()));
    let pair = prop::option::weighted(0.8, any::<[u8; 4]>());
    (
        [pod(), pod()],
        [0..CLASSES.len(), 0..CLASSES.len(), 0..CLASSES.len()],
        prop::collection::vec(pair, 2 * CLASSES.len()),
        any::<bool>(),
    )
        .prop_map(|(pods, classes, pairs, rejects)| Rules {
            pods,
            classes,
            pairs,
            rejects,
        })
}

/// Yes, no, by port, or a node that is not there.
fn cell(number: u8) -> Outcome {
    match number % 8 {
        0..3 => Outcome::allow(7),
        3..5 => Outcome::deny(8),
        5 => Outcome::see_node(0),
        6 => Outcome::see_node(1),
        _ => Outcome::see_node(2),
    }
}

/// An inner one, whose ranges are in the other.
fn nodes() -> [PortNode; 2] {
    let (yes, no) = (Outcome::allow(5), Outcome::deny(6));
    [
        PortNode::new(&[(0, Outcome::see_node(1)), (8080, yes), (8081, no)]),
        PortNode::new(&[(0, no), (80, yes), (81, no), (1000, yes), (1001, no)]),
    ]
}

impl Both {
    /// Rows of policies in both, under another generation.
    fn rule(&mut self, rules: &Rules) {
        let policy = &mut self.maps.policy;
        for (at, node) in (0..).zip(nodes()) {
            policy.ports.put(at, node, String::new).unwrap();
            self.memory.policy_ports.insert(at, node);
        }
        let tracked = |row: Option<PolicyPod>| row != Some(PolicyPod::new(NO_POLICY, NO_POLICY));
        for (of, sides) in [PODS, NEIGHBOURS].into_iter().zip(rules.pods) {
            let row = sides.map(|(ingress, egress)| PolicyPod::new(SIDES[ingress], SIDES[egress]));
            for pod in of.map(address) {
                policy.pods.remove(&pod).unwrap();
                self.memory.policy_pods.remove(&pod);
                if let Some(row) = row {
                    policy.pods.put(pod, row, String::new).unwrap();
                    self.memory.policy_pods.insert(pod, row);
                }
                let endpoint = self.memory.endpoints[&pod].with_tracked(tracked(row));
                self.maps
                    .endpoints
                    .change(&pod, |endpoint| endpoint.with_tracked(tracked(row)))
                    .unwrap();
                self.memory.endpoints.insert(pod, endpoint);
                if let Some(noted) = self.memory.translated.borrow_mut().get_mut(&pod) {
                    *noted = Box::leak(Box::new(noted.with_tracked(tracked(row))));
                }
            }
        }
        self.memory.policy_classes.clear();
        let of = [CLIENTS, FAR_PODS, NEIGHBOURS]
            .into_iter()
            .zip(rules.classes);
        let hosts = of.flat_map(|(hosts, class)| hosts.map(|host| (host, CLASSES[class])));
        let hosts = hosts.map(|(host, class)| {
            let bits = if host.contains(':') { 128 } else { 32 };
            (range_key(host, bits), class)
        });
        let everything = (range_key("0.0.0.0", 0), CLASS_V4);
        for (range, class) in hosts.chain([everything]).collect::<Vec<_>>() {
            let key = ClassKey {
                prefix_len: range.prefix_len,
                address: range.address,
            };
            policy.classes.put(key, class, String::new).unwrap();
            self.memory.policy_classes.push((range, class));
        }
        let keys = SIDES[1..].iter().flat_map(|policy| {
            CLASSES.map(|class| PairKey {
                policy: *policy,
                class,
            })
        });
        for (key, cells) in keys.zip(&rules.pairs) {
            policy.pairs.remove(&key).unwrap();
            self.memory.policy_pairs.remove(&key);
            if let Some(mut cells) = cells.map(|cells| cells.map(cell)) {
                // The last one never depends on ports.
                cells[3] = match cells[3].node() {
                    Some(_) => Outcome::deny(9),
                    None => cells[3],
                };
                let row = PairRow { cells };
                policy.pairs.put(key, row, String::new).unwrap();
                self.memory.policy_pairs.insert(key, row);
            }
        }
        let state = &mut self.memory.policy_state;
        state.generation += 1;
        state.flags = match rules.rejects {
            true => POLICY_REJECTS,
            false => POLICY_OBSERVES,
        };
        policy.state.put(&0, state, String::new).unwrap();
    }

    fn forget_connections(&mut self) {
        let policy = &self.maps.policy;
        for (key, _) in policy.connections.rows().unwrap() {
            policy.connections.remove(&key).unwrap();
        }
        for (index, place) in policy.places.rows().unwrap() {
            if place.connection().is_some() {
                let none = Place::default();
                policy.places.put(&index, &none, String::new).unwrap();
            }
        }
        for (key, _) in policy.denials.rows().unwrap() {
            policy.denials.remove(&key).unwrap();
        }
        self.memory.connections_of_pods.borrow_mut().clear();
        self.memory.places = Some(RefCell::default());
        self.memory.judgements = Some(RefCell::default());
        self.memory.denials.borrow_mut().clear();
    }

    /// What both remember.
    fn remembers_the_same(&self) {
        let policy = &self.maps.policy;
        let kernel = policy.all_connections().unwrap().into_iter().collect();
        let memory = self.memory.all_connections().into_iter().collect();
        let places = policy.places.rows().unwrap();
        let has_one = |(_, place): &(u32, Place)| place.connection().is_some();
        assert_eq!(
            places.iter().filter(|place| has_one(place)).count(),
            self.memory.all_connections().len() - self.memory.connections_of_pods.borrow().len()
        );
        let seen = |rows: BTreeMap<_, ripstop_abi::Connection>| -> Vec<_> {
            let rows = rows.into_iter();
            rows.map(|(key, row)| (key, row.is_inward(), row.is_established()))
                .collect()
        };
        assert_eq!(seen(kernel), seen(memory));
        let kernel = policy.denials.rows().unwrap().into_iter();
        let kernel: BTreeMap<_, _> = kernel.map(|(key, row)| (key, row.packets)).collect();
        let memory: BTreeMap<_, _> = self.memory.denials.borrow().clone().into_iter().collect();
        assert_eq!(kernel, memory);
    }
}

fn sample() -> impl Strategy<Value = (Sample, usize)> {
    let hosts: Vec<_> = [CLIENTS, NODES, PODS, NEIGHBOURS, FAR_PODS, SERVICES].concat();
    // Pods more often than others.
    let hosts: Vec<_> = [hosts, [PODS, NEIGHBOURS].concat()].concat();
    let end = || {
        let port = prop::sample::select(vec![0, 80, 8080, 1000]);
        (prop::sample::select(hosts.clone()), port)
    };
    let protocol = prop::sample::select(vec![6, 6, 6, 17, 17, 132, 1, 58, 44, 0, 99]);
    let flags = prop::sample::select(vec![0x02, 0x12, 0x10, 0x10, 0x11, 0x04]);
    let fragment = prop::sample::select(vec![0, 0, 0, 0, 0x2000, 1]);
    let payload = prop::collection::vec(any::<u8>(), 40..80);
    (
        end(),
        end(),
        protocol,
        flags,
        fragment,
        payload,
        0..PROGRAMS.len(),
    )
        .prop_map(
            |(source, destination, protocol, flags, fragment, payload, hook)| {
                let sample = Sample {
                    protocol,
                    flags,
                    fragment,
                    payload,
                    ..Sample::tcp(source, destination)
                };
                (sample, hook)
            },
        )
}

#[test]
fn whatever_policies_say() {
    let mut both = Both::new();
    let histories = prop::collection::vec((rules(), prop::collection::vec(sample(), 1..40)), 1..4);
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    };
    let mut ends = BTreeMap::new();
    let both = std::cell::RefCell::new(&mut both);
    let counts = std::cell::RefCell::new(&mut ends);
    let outcome = TestRunner::new(config).run(&histories, |history| {
        let mut both = both.borrow_mut();
        both.forget();
        both.forget_connections();
        for (rules, packets) in &history {
            both.rule(rules);
            for (sample, hook) in packets {
                let program = PROGRAMS[*hook];
                // By the stack, from elsewhere; from nowhere, as the node itself.
                let came_by = u32::from(sample.destination.1 % 16 != 0) * (LOOPBACK + 1);
                let came_by = if program == TO_POD { came_by } else { 0 };
                let verdict = both.agree_from(program, &sample.bytes(), 0, came_by);
                let kind = match verdict {
                    Verdict::Drop(reason) => reason.name(),
                    Verdict::Answer(_) => "answer",
                    _ => "goes on",
                };
                *counts.borrow_mut().entry(kind).or_insert(0) += 1;
            }
            both.remembers_the_same();
        }
        Ok(())
    });
    outcome.unwrap();
    // Each way was taken.
    for kind in [
        "policy",
        "no_connection",
        "unreadable",
        "fragment",
        "answer",
        "goes on",
    ] {
        assert!(ends.contains_key(kind), "{ends:?}");
    }
}

/// Answers of the rules are kept by connection and by question, each for as long as
/// the rules are the same, and the kernel keeps more of them than user space does.
#[test]
fn what_was_judged_ends_with_the_rules() {
    let (yes, no) = ([0; 4], [3; 4]);
    let of = |sides: [[[u8; 4]; 4]; 2]| sides.concat().into_iter().map(Some).collect();
    let both_may = Rules {
        pods: [Some((1, 1)); 2],
        classes: [2; 3],
        pairs: of([[yes, yes, yes, no], [no; 4]]),
        rejects: false,
    };
    let pods = |pods| Rules {
        pods,
        ..both_may.clone()
    };
    let changes = [
        // Other rules, other labels, pods that other policies are about or of which
        // nothing is known: also those that have got the address of another one.
        Rules {
            pairs: of([[yes, yes, no, no], [no; 4]]),
            ..both_may.clone()
        },
        Rules {
            classes: [3; 3],
            ..both_may.clone()
        },
        pods([Some((2, 1)), Some((1, 1))]),
        pods([Some((1, 1)), Some((1, 2))]),
        pods([None, Some((1, 1))]),
        pods([Some((1, 1)), None]),
    ];
    let mut both = Both::new();
    for family in 0..2 {
        for change in &changes {
            both.forget_connections();
            both.rule(&both_may);
            let ends = |port| ((NEIGHBOURS[family], port), (PODS[family], 80));
            let run = |both: &Both, sample: &Sample| both.agree(FROM_POD, &sample.bytes(), 0);
            for port in 1000..1003 {
                let (client, server) = ends(port);
                let first = Sample::tcp_syn(client, server);
                let answer = Sample {
                    flags: 0x12,
                    ..first.reversed()
                };
                let more = Sample::tcp(client, server);
                for packet in [first, answer, more.clone(), more] {
                    assert_eq!(run(&both, &packet), DELIVER, "{packet:?}");
                }
            }
            both.remembers_the_same();
            both.rule(change);
            let (client, server) = ends(1001);
            let (another, _) = ends(1009);
            for packet in [
                Sample::tcp(client, server),
                Sample::tcp(server, client),
                Sample::tcp_syn(another, server),
            ] {
                let denied = Verdict::Drop(DropReason::Policy);
                assert_eq!(run(&both, &packet), denied, "{change:?} {packet:?}");
            }
            both.remembers_the_same();
        }
    }
}
