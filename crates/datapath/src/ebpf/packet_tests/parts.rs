//! Packets in parts: the first, the others, and others alone.

use ripstop_abi::test_packets::{checksums_are_right, parts, whole};

use super::*;

const MOST: usize = 1024;

/// A packet in three parts, through one program; those that go on are its parts
/// again, with right checksums.
#[track_caller]
fn agree(both: &Both, program: &str, sample: &Sample) -> Verdict {
    let large = Sample {
        payload: (0..2500_u32).map(|index| index as u8).collect(),
        ..sample.clone()
    };
    let number = both.memory.parts.borrow().len() as u16;
    let cut = parts(&large.bytes(), MOST, 1000 + number);
    assert_eq!(cut.len(), 3);
    let mut verdicts = Vec::new();
    let mut after = Vec::new();
    for part in &cut {
        let (verdict, bytes) = both.became(program, part, 0, 0);
        verdicts.push(verdict);
        after.push(bytes);
    }
    assert!(verdicts.iter().all(|v| *v == verdicts[0]), "{verdicts:?}");
    assert!(checksums_are_right(&whole(&after)), "{verdicts:?}");
    // Of another packet: its first part has not come.
    let alone = &parts(&large.bytes(), MOST, 999)[1];
    let _ = both.agree(program, alone, 0);
    verdicts[0]
}

#[test]
fn parts_go_where_the_first_one_goes() {
    let both = Both::new();
    let out = Verdict::Route { ifindex: LOOPBACK };
    for family in 0..2 {
        let [client, node, pod, neighbour, far, service] =
            [CLIENTS, NODES, PODS, NEIGHBOURS, FAR_PODS, SERVICES].map(|all| all[family]);
        for make in [Sample::udp, Sample::tcp_syn] {
            let run = |program, sample: &Sample| agree(&both, program, sample);
            // To a service, twice, and back.
            let request = make((neighbour, 1000), (service, 80));
            for _ in 0..2 {
                assert_eq!(run(FROM_POD, &request), DELIVER);
            }
            let answer = make((pod, 8080), (neighbour, 1000));
            assert_eq!(run(FROM_POD, &answer), DELIVER);
            both.forget();
            // In by a NodePort, and out again.
            let request = make((client, 1000), (node, 81));
            assert_eq!(run(FROM_OUTSIDE, &request), DELIVER);
            assert_eq!(run(FROM_POD, &make((pod, 8080), (node, PORT))), out);
            both.forget();
            let request = make((client, 1000), (node, 82));
            let forward = run(FROM_OUTSIDE, &request);
            assert!(matches!(forward, Verdict::Forward { .. }), "{forward:?}");
            assert_eq!(run(FROM_OUTSIDE, &make((far, 8080), (node, PORT))), out);
            both.forget();
            // Out of the cluster, and what is answered.
            let request = make((pod, 1000), (client, 53));
            assert_eq!(run(TO_OUTSIDE, &request), Verdict::Stack);
            assert_eq!(
                run(FROM_OUTSIDE, &make((client, 53), (node, PORT))),
                DELIVER
            );
            both.forget();
        }
    }
}

#[test]
fn parts_that_are_too_long_and_parts_to_nobody() {
    let both = Both::new();
    for family in 0..2 {
        let [client, node] = [CLIENTS, NODES].map(|all| all[family]);
        // Node 82 is forwarded by a way that is 1,400 bytes wide; behind 84 is nobody.
        for (port, reason) in [(82, DropReason::TooLong), (84, DropReason::NoBackends)] {
            let large = Sample {
                payload: vec![0; 4000],
                ..Sample::udp((client, 1000), (node, port))
            };
            let cut = parts(&large.bytes(), 1440, port);
            let told = both.agree(FROM_OUTSIDE, &cut[0], 0);
            assert_eq!(told, Verdict::Answer(reason));
            let later = both.agree(FROM_OUTSIDE, &cut[1], 0);
            let silently = match reason {
                DropReason::TooLong => Verdict::Drop(reason),
                _ => Verdict::Stack,
            };
            assert_eq!(later, silently);
        }
        both.forget();
    }
}
