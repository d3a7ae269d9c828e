mod both_ends;

use core::cell::RefCell;
use core::net::IpAddr;
use std::vec::Vec;

use crate::policy::{CLASS_V4, CLASS_V6};
use crate::test_packets::{MemoryTables, Sample, checksums_are_right};
use crate::{
    Address, Connection, ConnectionKey, DropReason, Endpoint, IPPROTO_TCP, NO_POLICY, Outcome,
    POLICY_REJECTS, PacketBytes, PairKey, PairRow, PolicyPod, Port, RouteKey, Verdict,
};

const LINK: u32 = 7;
const OTHER_LINK: u32 = 8;
const UPLINK: u32 = 2;
const SIDE: u64 = 100;
/// Who may.
const FRIEND: u64 = 50;

/// Addresses of one family.
struct Names {
    /// Policies are about it.
    pod: &'static str,
    /// None are.
    open: &'static str,
    friend: &'static str,
    stranger: &'static str,
    node: &'static str,
}

const FAMILIES: [Names; 2] = [
    Names {
        pod: "10.244.1.2",
        open: "10.244.1.3",
        friend: "192.0.2.1",
        stranger: "192.0.2.2",
        node: "172.30.1.11",
    },
    Names {
        pod: "fd00:244:1::2",
        open: "fd00:244:1::3",
        friend: "2001:db8::1",
        stranger: "2001:db8::2",
        node: "fd00:30:1::b",
    },
];

const PASSES: Verdict = Verdict::Deliver { ifindex: LINK };
const DENIED: Verdict = Verdict::Drop(DropReason::Policy);
const UNKNOWN: Verdict = Verdict::Drop(DropReason::NoConnection);

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn says(outcome: Outcome) -> PairRow {
    PairRow {
        cells: [outcome; 4],
    }
}

/// With what is in force on ingress and egress of the pod. Friends may, nobody
/// else.
fn tables(ingress: u64, egress: u64) -> MemoryTables {
    let mut tables = MemoryTables {
        places: Some(RefCell::default()),
        judgements: Some(RefCell::default()),
        ..MemoryTables::default()
    };
    tables.policy_state.generation = 1;
    for names in &FAMILIES {
        let pod = Endpoint::new(LINK, [2, 0, 0, 0, 0, 7]).with_tracked(true);
        tables.endpoints.insert(address(names.pod), pod);
        let open = Endpoint::new(OTHER_LINK, [2, 0, 0, 0, 0, 8]);
        tables.endpoints.insert(address(names.open), open);
        let row = PolicyPod::new(ingress, egress);
        tables.policy_pods.insert(address(names.pod), row);
        tables.own.push(address(names.node));
        let friend = RouteKey {
            prefix_len: 128,
            address: address(names.friend),
        };
        tables.policy_classes.push((friend, FRIEND));
    }
    for class in [CLASS_V4, CLASS_V6] {
        let key = PairKey {
            policy: SIDE,
            class,
        };
        tables.policy_pairs.insert(key, says(Outcome::deny(9)));
    }
    let key = PairKey {
        policy: SIDE,
        class: FRIEND,
    };
    tables.policy_pairs.insert(key, says(Outcome::allow(8)));
    tables
}

fn run(tables: &MemoryTables, sample: &Sample, link: u32, came_by: Option<u32>) -> Verdict {
    run_bytes(tables, &mut sample.bytes(), link, came_by)
}

fn run_bytes(
    tables: &MemoryTables,
    bytes: &mut Vec<u8>,
    link: u32,
    came_by: Option<u32>,
) -> Verdict {
    let mut packet = PacketBytes {
        bytes,
        link: [0; 6],
        ifindex: link,
        segment_size: 0,
        came_by: came_by.unwrap_or(0),
        socket: None,
    };
    let outcome = match (link, came_by) {
        (_, Some(_)) => crate::to_pod(&mut packet, tables),
        (UPLINK, _) => crate::from_outside(&mut packet, tables),
        _ => crate::from_pod(&mut packet, tables),
    };
    outcome.verdict()
}

/// From outside.
fn comes(tables: &MemoryTables, sample: &Sample) -> Verdict {
    run(tables, sample, UPLINK, None)
}

/// From the pod.
fn goes(tables: &MemoryTables, sample: &Sample) -> Verdict {
    run(tables, sample, LINK, None)
}

/// By the host's stack.
fn forwarded(tables: &MemoryTables, sample: &Sample) -> Verdict {
    run(tables, sample, LINK, Some(UPLINK))
}

type Make = fn((&str, u16), (&str, u16)) -> Sample;
const KINDS: [Make; 4] = [Sample::tcp_syn, Sample::udp, Sample::sctp, Sample::echo];

/// As [`Sample::reversed`], and not its first.
fn answer(sample: &Sample) -> Sample {
    Sample {
        flags: 0x12,
        ..sample.reversed()
    }
}

#[test]
fn answers_pass_where_their_connection_does() {
    for names in &FAMILIES {
        for make in KINDS {
            let both = tables(SIDE, SIDE);
            let in_ = |who| make((who, 1000), (names.pod, 80));
            let out = |who| make((names.pod, 1001), (who, 80));
            assert_eq!(comes(&both, &in_(names.stranger)), DENIED);
            assert_eq!(goes(&both, &out(names.stranger)), DENIED);
            assert_eq!(comes(&both, &in_(names.friend)), PASSES);
            assert_eq!(goes(&both, &out(names.friend)), Verdict::Stack);
            // The pod may ask anybody; nobody may ask it.
            let one = tables(SIDE, NO_POLICY);
            let (asks, answers) = (out(names.stranger), answer(&out(names.stranger)));
            assert_ne!(comes(&one, &answers), PASSES);
            assert_eq!(goes(&one, &asks), Verdict::Stack);
            assert_eq!(comes(&one, &answers), PASSES);
            assert_eq!(forwarded(&one, &answers), Verdict::Stack);
            // The other way round.
            let one = tables(NO_POLICY, SIDE);
            let (asks, answers) = (in_(names.stranger), answer(&in_(names.stranger)));
            assert_ne!(goes(&one, &answers), Verdict::Stack);
            assert_eq!(comes(&one, &asks), PASSES);
            assert_eq!(goes(&one, &answers), Verdict::Stack);
        }
    }
}

#[test]
fn a_change_of_the_rules_is_one_for_connections() {
    for names in &FAMILIES {
        let mut tables = tables(SIDE, SIDE);
        let first = Sample::tcp_syn((names.friend, 1000), (names.pod, 80));
        let more = Sample::tcp((names.friend, 1000), (names.pod, 80));
        assert_eq!(comes(&tables, &first), PASSES);
        assert_eq!(goes(&tables, &answer(&first)), Verdict::Stack);
        let pair = PairKey {
            policy: SIDE,
            class: FRIEND,
        };
        for (outcome, expect) in [(Outcome::deny(9), DENIED), (Outcome::allow(8), PASSES)] {
            tables.policy_pairs.insert(pair, says(outcome));
            tables.policy_state.generation += 1;
            assert_eq!(comes(&tables, &more), expect);
            let answers = if expect == PASSES {
                Verdict::Stack
            } else {
                DENIED
            };
            assert_eq!(goes(&tables, &answer(&first)), answers);
        }
        // As the connection's: by its port and its direction, for both.
        let denials = tables.denials.borrow();
        let of_pod = denials
            .iter()
            .filter(|(key, _)| key.pod == address(names.pod));
        let rows: Vec<_> = of_pod
            .map(|(key, count)| (key.port.host(), key.ingress, *count))
            .collect();
        assert_eq!(rows, [(80, 1, 2)]);
    }
}

#[test]
fn the_ends_of_a_connection() {
    let names = &FAMILIES[0];
    let (pod, friend) = ((names.pod, 80), (names.friend, 1000));
    let rows = |tables: &MemoryTables| tables.all_connections().len();
    let open = || {
        let tables = tables(SIDE, SIDE);
        assert_eq!(comes(&tables, &Sample::tcp_syn(friend, pod)), PASSES);
        let accepts = Sample::tcp_syn(friend, pod);
        assert_eq!(goes(&tables, &answer(&accepts)), Verdict::Stack);
        assert_eq!(rows(&tables), 1);
        tables
    };
    // Both say so, and the last is acknowledged.
    let tables = open();
    assert_eq!(comes(&tables, &Sample::tcp_fin(friend, pod)), PASSES);
    assert_eq!(goes(&tables, &Sample::tcp(pod, friend)), Verdict::Stack);
    assert_eq!(goes(&tables, &Sample::tcp_fin(pod, friend)), Verdict::Stack);
    assert_eq!(rows(&tables), 1);
    assert_eq!(comes(&tables, &Sample::tcp(friend, pod)), PASSES);
    assert_eq!(rows(&tables), 0);
    // The pod says so at once.
    let reset = |from, to| Sample {
        flags: 0x04,
        ..Sample::tcp(from, to)
    };
    let tables = open();
    assert_eq!(goes(&tables, &reset(pod, friend)), Verdict::Stack);
    assert_eq!(rows(&tables), 0);
    // Somebody outside says so, who may be anybody: the pod goes on.
    let tables = open();
    assert_eq!(comes(&tables, &reset(friend, pod)), PASSES);
    assert_eq!(rows(&tables), 1);
    tables.now.set(100);
    assert_eq!(goes(&tables, &Sample::tcp(pod, friend)), Verdict::Stack);
    tables.now.set(100_000);
    assert_eq!(comes(&tables, &Sample::tcp(friend, pod)), PASSES);
    // Nothing that ends makes a row.
    let tables = super::tests::tables(SIDE, SIDE);
    assert_eq!(comes(&tables, &Sample::tcp_fin(friend, pod)), PASSES);
    assert_eq!(rows(&tables), 0);
}

#[test]
fn silence_ends_what_was_not_answered_first() {
    for (make, answered, patience) in [
        (Sample::tcp_syn as Make, false, 60),
        (Sample::tcp_syn, true, 5 * 24 * 60 * 60),
        (Sample::udp, false, 30),
        (Sample::udp, true, 120),
        (Sample::echo, true, 30),
        (Sample::sctp, true, 600),
    ] {
        let names = &FAMILIES[1];
        let tables = tables(SIDE, NO_POLICY);
        let asks = make((names.pod, 1000), (names.stranger, 80));
        assert_eq!(goes(&tables, &asks), Verdict::Stack);
        if answered {
            assert_eq!(comes(&tables, &answer(&asks)), PASSES);
        }
        tables.now.set(patience);
        assert_eq!(comes(&tables, &answer(&asks)), PASSES, "{asks:?}");
        let patience = patience
            + if answered {
                patience + 1
            } else {
                5 * 24 * 60 * 60 + 1
            };
        tables.now.set(patience);
        assert_ne!(comes(&tables, &answer(&asks)), PASSES, "{asks:?}");
    }
}

#[test]
fn who_begins_is_asked_about() {
    let names = &FAMILIES[0];
    let tables = tables(SIDE, NO_POLICY);
    let out = Sample::tcp_syn((names.pod, 1000), (names.stranger, 80));
    assert_eq!(goes(&tables, &out), Verdict::Stack);
    // Not with the first packet of one the other way.
    let back = Sample::tcp_syn((names.stranger, 80), (names.pod, 1000));
    assert_eq!(comes(&tables, &back), DENIED);
    assert_eq!(comes(&tables, &answer(&out)), PASSES);
    // What is in the middle of nothing is no question to the rules.
    let nothing = Sample::tcp((names.stranger, 81), (names.pod, 1000));
    assert_eq!(comes(&tables, &nothing), UNKNOWN);
    let denials = tables.denials.borrow();
    let by: Vec<_> = denials.keys().map(|denial| denial.by).collect();
    assert!(by.len() == 2 && by.contains(&crate::BY_NO_CONNECTION));
}

#[test]
fn what_is_from_before_the_policies_goes_on() {
    let names = &FAMILIES[0];
    let mut tables = tables(SIDE, NO_POLICY);
    let pushed = Sample::tcp((names.stranger, 80), (names.pod, 1000));
    let row = PolicyPod::new(SIDE, NO_POLICY);
    tables.now.set(1000);
    tables
        .policy_pods
        .insert(address(names.pod), row.since(900));
    // The pod may have asked for it.
    assert_eq!(comes(&tables, &pushed), PASSES);
    let first = Sample::tcp_syn((names.stranger, 81), (names.pod, 1000));
    assert_eq!(comes(&tables, &first), DENIED);
    // It may not have.
    tables
        .policy_pods
        .insert(address(names.pod), PolicyPod::new(SIDE, SIDE).since(900));
    let pushed = Sample::tcp((names.stranger, 82), (names.pod, 1000));
    assert_eq!(comes(&tables, &pushed), UNKNOWN);
    // That was long ago.
    tables
        .policy_pods
        .insert(address(names.pod), row.since(900));
    tables.now.set(1500);
    assert_eq!(comes(&tables, &pushed), UNKNOWN);
}

#[test]
fn a_full_table_refuses_what_needs_it() {
    let names = &FAMILIES[0];
    let full = |ingress, egress| MemoryTables {
        connections_limit: Some(0),
        // Others have them.
        places: None,
        ..tables(ingress, egress)
    };
    let out = Sample::tcp_syn((names.pod, 1000), (names.friend, 80));
    let into = Sample::tcp_syn((names.friend, 1000), (names.pod, 80));
    let refused = Verdict::Drop(DropReason::ConnectionsFull);
    // Answers pass by themselves.
    assert_eq!(comes(&full(SIDE, NO_POLICY), &into), PASSES);
    assert_eq!(goes(&full(NO_POLICY, SIDE), &out), Verdict::Stack);
    // Answers do not.
    assert_eq!(goes(&full(SIDE, NO_POLICY), &out), refused);
    assert_eq!(comes(&full(SIDE, SIDE), &into), refused);
    // What may be an answer, of which nothing is remembered.
    let tables = full(SIDE, NO_POLICY);
    assert_eq!(comes(&tables, &into), PASSES);
    assert_eq!(goes(&tables, &answer(&into)), Verdict::Stack);
    let asks = Sample::udp((names.pod, 1000), (names.stranger, 80));
    assert_eq!(goes(&tables, &asks), Verdict::Stack);
    assert_eq!(comes(&tables, &asks.reversed()), DENIED);
}

#[test]
fn parts_follow_the_first() {
    let names = &FAMILIES[0];
    let tables = tables(SIDE, SIDE);
    let part = |who, fragment| Sample {
        fragment,
        ..Sample::udp((who, 1000), (names.pod, 80))
    };
    let alone = Verdict::Drop(DropReason::Fragment);
    assert_eq!(comes(&tables, &part(names.friend, 0x20)), alone);
    assert_eq!(comes(&tables, &part(names.friend, 0x2000)), PASSES);
    assert_eq!(comes(&tables, &part(names.friend, 0x20)), PASSES);
    assert_eq!(comes(&tables, &part(names.stranger, 0x2000)), DENIED);
    assert_eq!(comes(&tables, &part(names.stranger, 0x20)), alone);
    tables.now.set(31);
    assert_eq!(comes(&tables, &part(names.friend, 0x20)), alone);
}

/// An ICMP error from somebody to the pod about a packet.
fn error(from: &str, about: &Sample) -> Vec<u8> {
    let about = about.bytes();
    let (protocol, kind) = if from.contains(':') { (58, 1) } else { (1, 3) };
    let payload = [
        &[kind, 1, 0, 0, 0, 0, 0, 0],
        &about[14..about.len().min(74)],
    ]
    .concat();
    let to = if protocol == 1 {
        FAMILIES[0].pod
    } else {
        FAMILIES[1].pod
    };
    let sample = Sample {
        protocol,
        payload,
        ..Sample::tcp((from, 0), (to, 0))
    };
    sample.bytes()
}

#[test]
fn errors_are_of_what_they_are_about() {
    for names in &FAMILIES {
        let tables = tables(SIDE, NO_POLICY);
        let asks = Sample::udp((names.pod, 1000), (names.friend, 80));
        let router = names.stranger;
        let comes = |bytes: &mut Vec<u8>| run_bytes(&tables, bytes, UPLINK, None);
        assert_eq!(comes(&mut error(router, &asks)), DENIED);
        assert_eq!(goes(&tables, &asks), Verdict::Stack);
        assert_eq!(comes(&mut error(router, &asks)), PASSES);
        // Of another port; and of what the pod did not send.
        let other = Sample::udp((names.pod, 1001), (names.friend, 80));
        assert_eq!(comes(&mut error(router, &other)), DENIED);
        assert_eq!(comes(&mut error(router, &asks.reversed())), DENIED);
        // From whom the pod takes anything.
        assert_eq!(comes(&mut error(names.friend, &other)), PASSES);
        assert_eq!(tables.all_connections().len(), 1);
    }
}

#[test]
fn headers_that_hide_others_do_not_pass() {
    let [v4, v6] = &FAMILIES;
    let tables = tables(SIDE, SIDE);
    let hidden = Verdict::Drop(DropReason::Unreadable);
    for protocol in [0, 43, 51, 60, 135] {
        let sample = Sample {
            protocol,
            ..Sample::tcp((v6.friend, 1), (v6.pod, 80))
        };
        assert_eq!(forwarded(&tables, &sample), hidden, "{protocol}");
    }
    let mut options = Sample::udp((v4.pod, 1), (v4.friend, 80)).bytes();
    options[14] = 0x46;
    assert_eq!(run_bytes(&tables, &mut options, LINK, None), hidden);
}

#[test]
fn the_node_itself_is_never_denied() {
    for names in &FAMILIES {
        let mut tables = tables(SIDE, SIDE);
        let to_node = Sample::tcp_syn((names.pod, 1000), (names.node, 80));
        let from_node = Sample::tcp_syn((names.stranger, 1000), (names.pod, 80));
        let of_node = |tables: &MemoryTables| run(tables, &from_node, LINK, Some(0));
        assert_eq!(goes(&tables, &to_node), Verdict::Stack);
        assert_eq!(of_node(&tables), Verdict::Stack);
        assert_eq!(forwarded(&tables, &from_node), DENIED);
        // Nothing is planned for it yet: nothing else passes.
        tables.policy_pods.clear();
        assert_eq!(goes(&tables, &to_node), Verdict::Stack);
        assert_eq!(of_node(&tables), Verdict::Stack);
        let friend = Sample::tcp_syn((names.friend, 1000), (names.pod, 80));
        assert_eq!(comes(&tables, &friend), DENIED);
        assert_eq!(goes(&tables, &friend.reversed()), DENIED);
    }
}

#[test]
fn who_is_denied_may_be_told() {
    for names in &FAMILIES {
        let mut tables = tables(SIDE, SIDE);
        tables.policy_state.flags = POLICY_REJECTS;
        for make in KINDS {
            let sample = make((names.open, 1000), (names.pod, 80));
            let mut bytes = sample.bytes();
            let verdict = run_bytes(&tables, &mut bytes, OTHER_LINK, None);
            if sample.protocol == 1 || sample.protocol == 58 {
                assert_eq!(verdict, DENIED);
                continue;
            }
            assert_eq!(verdict, Verdict::Answer(DropReason::Policy));
            assert!(checksums_are_right(&bytes));
            let icmp = if sample.source.0.is_ipv4() { 34 } else { 54 };
            if sample.protocol == IPPROTO_TCP {
                assert_eq!(bytes[icmp + 13], 0x14, "reset");
            } else {
                let prohibited = if sample.source.0.is_ipv4() {
                    [3, 13]
                } else {
                    [1, 1]
                };
                assert_eq!(bytes[icmp..icmp + 2], prohibited);
            }
        }
    }
}

#[test]
fn a_connection_that_was_taken_over() {
    let names = &FAMILIES[0];
    let tables = tables(SIDE, SIDE);
    let key = ConnectionKey {
        pod: address(names.pod),
        other: address(names.friend),
        pod_port: Port::from_host(80),
        other_port: Port::from_host(1000),
        protocol: IPPROTO_TCP.into(),
    };
    let row = std::boxed::Box::leak(std::boxed::Box::new(Connection::established(true, 0)));
    tables.connections_of_pods.borrow_mut().insert(key, row);
    let answers = Sample::tcp((names.pod, 80), (names.friend, 1000));
    assert_eq!(goes(&tables, &answers), Verdict::Stack);
    assert!(row.is_established() && row.is_inward());
}
