//! Packets in parts: led like whole ones.

use super::*;
use crate::test_packets::{parts, whole};

/// With more than fits into two parts.
const LARGE: usize = 2500;
/// Bytes of each part.
const MOST: usize = 1024;

fn large(sample: Sample) -> Sample {
    Sample {
        payload: (0..LARGE).map(|index| index as u8).collect(),
        ..sample
    }
}

/// Sends the parts of a packet; they have to become those of `becomes`.
#[track_caller]
fn all_turn(tables: &MemoryTables, from: u32, sample: &Sample, becomes: &Sample) -> Verdict {
    let mut became = parts(&large(sample.clone()).bytes(), MOST, 0x1234);
    assert_eq!(became.len(), 3);
    let verdicts = became.iter_mut().map(|part| through(tables, part, from));
    let verdicts: Vec<_> = verdicts.collect();
    assert!(
        verdicts.windows(2).all(|two| two[0] == two[1]),
        "{verdicts:?}"
    );
    let whole = whole(&became);
    assert!(checksums_are_right(&whole), "{verdicts:?}");
    let hops = if from == LEAVING { 64 } else { 63 };
    let expected = Sample {
        hops,
        ..large(becomes.clone())
    };
    assert_eq!(whole[12..], expected.bytes()[12..], "{verdicts:?}");
    verdicts[0]
}

const MAKERS: [Make; 2] = [Sample::udp, Sample::tcp_syn];

#[test]
fn a_pod_and_its_service() {
    for names in &FAMILIES {
        for make in MAKERS {
            let tables = tables();
            let request = make((names.other, 1000), (names.service, 80));
            let inside = make((names.other, 1000), (names.pod, 8080));
            // The first one begins the flow, the second is of it.
            for _ in 0..2 {
                assert_eq!(all_turn(&tables, OTHER, &request, &inside), DELIVER);
            }
            let there = Verdict::Deliver { ifindex: OTHER };
            let (answer, outside) = (inside.reversed(), request.reversed());
            assert_eq!(all_turn(&tables, POD, &answer, &outside), there);
        }
    }
}

#[test]
fn a_client_outside_and_a_node_port() {
    for names in &FAMILIES {
        let gateway = address(names.far_node);
        let ifindex = UPLINK;
        let forward = Verdict::Forward { ifindex, gateway };
        for (port, backend, from, there) in [
            (30_080, names.pod, POD, DELIVER),
            (30_081, names.far_pod, UPLINK, forward),
        ] {
            let tables = tables();
            let request = Sample::udp((names.client, 1000), (names.node, port));
            let own_port = {
                let mut first = parts(&large(request.clone()).bytes(), MOST, 1).swap_remove(0);
                assert_eq!(through(&tables, &mut first, UPLINK), there);
                node_port(&tables)
            };
            let inside = Sample::udp((names.node, own_port), (backend, 8080));
            assert_eq!(all_turn(&tables, UPLINK, &request, &inside), there);
            let (answer, outside) = (inside.reversed(), request.reversed());
            assert_eq!(all_turn(&tables, from, &answer, &outside), OUT);
        }
    }
}

#[test]
fn a_pod_and_the_world() {
    for names in &FAMILIES {
        for make in [Sample::udp as Make, Sample::echo] {
            let tables = tables();
            let request = make((names.pod, 1000), (names.client, 53));
            let mut first = parts(&large(request.clone()).bytes(), MOST, 1).swap_remove(0);
            assert_eq!(through(&tables, &mut first, LEAVING), Verdict::Stack);
            let outside = make((names.node, node_port(&tables)), (names.client, 53));
            let left = all_turn(&tables, LEAVING, &request, &outside);
            assert_eq!(left, Verdict::Stack);
            let (answer, inside) = (outside.reversed(), request.reversed());
            assert_eq!(all_turn(&tables, UPLINK, &answer, &inside), DELIVER);
        }
    }
}

#[test]
fn without_the_first_one_they_go_nowhere() {
    for names in &FAMILIES {
        let tables = tables();
        let request = Sample::udp((names.pod, 1000), (names.service, 80));
        let cut = |id| parts(&large(request.clone()).bytes(), MOST, id);
        let alone = Verdict::Drop(DropReason::Fragment);
        let one = |part: &[u8]| through(&tables, &mut part.to_vec(), POD);
        assert_eq!(one(&cut(1)[1]), alone);
        assert_eq!(one(&cut(1)[0]), DELIVER);
        assert_eq!(one(&cut(1)[2]), DELIVER);
        assert_eq!(one(&cut(2)[1]), alone, "of another packet");
        tables.now.set(31);
        assert_eq!(one(&cut(1)[1]), alone, "too late");
        let outside = Sample::udp((names.pod, 1000), (names.client, 53));
        let mut part = parts(&large(outside).bytes(), MOST, 1).swap_remove(1);
        assert_eq!(through(&tables, &mut part, LEAVING), alone);
    }
}

#[test]
fn refused_is_the_first_one_alone() {
    for names in &FAMILIES {
        let tables = tables();
        let request = Sample::udp((names.client, 1000), (names.node, 30_084));
        let mut cut = parts(&large(request).bytes(), MOST, 1);
        let refused = Verdict::Answer(DropReason::NoBackends);
        let before = cut[0].clone();
        assert_eq!(through(&tables, &mut cut[0], UPLINK), refused);
        assert!(checksums_are_right(&cut[0]));
        // Of an IPv6 packet the ports are quoted, too, behind the part's header.
        let quoted = [28, 56][usize::from(names.set != 100)];
        assert!(cut[0].ends_with(&before[14..14 + quoted]));
        assert_eq!(through(&tables, &mut cut[1], UPLINK), Verdict::Stack);
    }
}

#[test]
fn a_flood_of_first_ones_takes_the_sender_s_own_rows() {
    for names in &FAMILIES {
        let tables = tables();
        let request = |who| Sample::udp((who, 1000), (names.service, 80));
        let cut = |who, id| parts(&large(request(who)).bytes(), MOST, id);
        let mut others = cut(names.other, 7);
        assert_eq!(through(&tables, &mut others[0], OTHER), DELIVER);
        for id in 0..1000 {
            assert_eq!(through(&tables, &mut cut(names.pod, id)[0], POD), DELIVER);
        }
        assert_eq!(tables.parts.borrow().len(), 17);
        assert_eq!(through(&tables, &mut others[1], OTHER), DELIVER);
        // Nor do those who may call themselves anything.
        let request = Sample::udp((names.client, 1000), (names.node, 30_080));
        for id in (0..u16::MAX).step_by(31) {
            let mut first = parts(&large(request.clone()).bytes(), MOST, id).swap_remove(0);
            assert_eq!(through(&tables, &mut first, UPLINK), DELIVER);
        }
        assert!(tables.parts.borrow().len() <= 17 + 512);
        assert_eq!(through(&tables, &mut others[2], OTHER), DELIVER);
    }
}

/// What the stack puts together and cuts again it has to get all of.
#[test]
fn all_parts_go_by_the_stack_when_one_is_too_long() {
    const FORWARD: fn(&Names) -> Verdict = |names| Verdict::Forward {
        ifindex: UPLINK,
        gateway: address(names.far_node),
    };
    for names in &FAMILIES {
        let request = Sample::udp((names.pod, 1000), (names.far_pod, 53));
        let tables = tables();
        let sent = |most, id| -> Vec<Verdict> {
            let cut = parts(&large(request.clone()).bytes(), most, id);
            let sent = cut.into_iter().map(|mut part| {
                let before = part.clone();
                let verdict = through(&tables, &mut part, POD);
                assert_eq!(part == before, verdict == Verdict::Stack);
                verdict
            });
            sent.collect()
        };
        // The way is 1,400 bytes wide.
        assert_eq!(sent(1024, 1), [FORWARD(names); 3]);
        assert_eq!(sent(1440, 2), [Verdict::Stack; 2]);
        assert_eq!(sent(1024, 3), [Verdict::Stack; 3], "from then on");
        let mut whole = request.bytes();
        assert_eq!(through(&tables, &mut whole, POD), FORWARD(names));
        let mut other = Sample::udp((names.other, 1000), (names.far_pod, 53));
        other = large(other);
        for mut part in parts(&other.bytes(), 1024, 4) {
            assert_eq!(through(&tables, &mut part, OTHER), FORWARD(names));
        }
    }
}

/// Of a packet that its sender knows by the service's address, who cuts it is the
/// stack, and who tells him that nobody may are we.
#[test]
fn what_is_too_long_and_led_to_another_node() {
    for names in &FAMILIES {
        let v4 = address(names.pod).is_v4();
        let tables = tables();
        let request = Sample::udp((names.pod, 1000), (names.node, 30_081));
        let inside = Sample::udp((names.pod, 1000), (names.far_pod, 8080));
        let mut cut = parts(&large(request.clone()).bytes(), 1440, 0x1234);
        let verdicts: Vec<_> = cut.iter_mut().map(|p| through(&tables, p, POD)).collect();
        if v4 {
            assert_eq!(verdicts, [Verdict::Stack; 2]);
            assert!(checksums_are_right(&whole(&cut)));
            assert_eq!(whole(&cut)[12..], large(inside.clone()).bytes()[12..]);
        } else {
            assert_eq!(verdicts[0], Verdict::Answer(DropReason::TooLong));
        }
        for may_be_cut in [true, false] {
            let fragment = if may_be_cut { 0 } else { 0x4000 };
            let of = |sample: &Sample| {
                let sample = sample.clone();
                large(Sample { fragment, ..sample }).bytes()
            };
            let mut bytes = of(&request);
            let verdict = through(&tables, &mut bytes, POD);
            if v4 && may_be_cut {
                assert_eq!(verdict, Verdict::Stack);
                assert_eq!(bytes[12..], of(&inside)[12..]);
            } else {
                assert_eq!(verdict, Verdict::Answer(DropReason::TooLong));
            }
        }
    }
}
