//! Connections between two pods of this node that policies are about.

use super::*;
use crate::{POLICY_OBSERVES, POLICY_RETIRED, PortNode, ShareKey};

const PEER: &str = "10.244.1.9";
const PEERS: [&str; 2] = [PEER, "fd00:244:1::9"];
/// Sides of the peer.
const OF_PEER: u64 = 200;
const PEERS_CLASS: u64 = 51;
const PODS_CLASS: u64 = 52;
const TO_PEER: Verdict = Verdict::Deliver {
    ifindex: OTHER_LINK,
};

/// A second pod that policies are about; each allows the other's port 80.
fn two_pods() -> MemoryTables {
    let mut tables = tables(SIDE, SIDE);
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        let row = Endpoint::new(OTHER_LINK, [2, 0, 0, 0, 0, 9]).with_tracked(true);
        tables.endpoints.insert(address(peer), row);
        let row = PolicyPod::new(OF_PEER, OF_PEER);
        tables.policy_pods.insert(address(peer), row);
        for (of, class) in [(peer, PEERS_CLASS), (names.pod, PODS_CLASS)] {
            let key = RouteKey {
                prefix_len: 128,
                address: address(of),
            };
            tables.policy_classes.push((key, class));
        }
    }
    for class in [CLASS_V4, CLASS_V6] {
        let key = PairKey {
            policy: OF_PEER,
            class,
        };
        tables.policy_pairs.insert(key, says(Outcome::deny(9)));
    }
    let (yes, no) = (Outcome::allow(8), Outcome::deny(9));
    let ports = PortNode::new(&[(0, no), (80, yes), (81, no)]);
    tables.policy_ports.insert(1, ports);
    say(&mut tables, SIDE, PEERS_CLASS, PORT_80);
    say(&mut tables, OF_PEER, PODS_CLASS, PORT_80);
    tables
}

const PORT_80: Outcome = Outcome::see_node(1);

/// Another generation of the rules.
fn say(tables: &mut MemoryTables, policy: u64, class: u64, outcome: Outcome) {
    tables
        .policy_pairs
        .insert(PairKey { policy, class }, says(outcome));
    tables.policy_state.generation += 1;
}

/// Whether policies are about the pod, with rules of another generation.
fn track(tables: &mut MemoryTables, pod: &str, tracked: bool) {
    let row = tables.endpoints[&address(pod)].with_tracked(tracked);
    tables.endpoints.insert(address(pod), row);
    tables.policy_state.generation += 1;
}

type End = (&'static str, u16);

/// Client and server: the pod asks its peer, and the other way round.
fn ends(pod: &'static str, peer: &'static str) -> [(End, End); 2] {
    [((pod, 1000), (peer, 80)), ((peer, 1000), (pod, 80))]
}

/// From either pod.
fn sent(tables: &MemoryTables, sample: &Sample) -> Verdict {
    let by_pod = FAMILIES
        .iter()
        .any(|names| names.pod.parse() == Ok(sample.source.0));
    let link = if by_pod { LINK } else { OTHER_LINK };
    run(tables, sample, link, None)
}

fn passes(tables: &MemoryTables, sample: &Sample) -> bool {
    matches!(sent(tables, sample), PASSES | TO_PEER)
}

fn rows(tables: &MemoryTables) -> Vec<(ConnectionKey, Connection)> {
    tables.all_connections()
}

#[test]
fn one_row_is_of_both() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            let tables = two_pods();
            let (first, more) = (Sample::tcp_syn(client, server), Sample::tcp(client, server));
            for packet in [&first, &answer(&first), &more, &more.reversed()] {
                assert!(passes(&tables, packet), "{packet:?}");
                let found = rows(&tables);
                assert_eq!(found.len(), 1);
                // Counted as that of who began it.
                let share = ShareKey::new(&found[0].0, &found[0].1);
                assert_eq!((share.pod, share.inward), (address(client.0), 0));
            }
            assert!(rows(&tables)[0].1.is_established());
            let end = Sample::tcp_fin(client, server);
            for packet in [&end, &end.reversed(), &more] {
                assert!(passes(&tables, packet), "{packet:?}");
            }
            assert_eq!(rows(&tables), []);
            // Nothing is left that what comes later could be of.
            assert_eq!(sent(&tables, &more.reversed()), UNKNOWN);
        }
    }
}

#[test]
fn either_end_may_end_it_by_a_change() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            for (policy, class) in [(SIDE, PEERS_CLASS), (OF_PEER, PODS_CLASS)] {
                let mut tables = two_pods();
                let first = Sample::tcp_syn(client, server);
                let more = Sample::tcp(client, server);
                let packets = [first.clone(), answer(&first), more.clone(), more.reversed()];
                assert!(packets.iter().all(|packet| passes(&tables, packet)));
                // Also of a connection that was met this very second.
                say(&mut tables, policy, class, Outcome::deny(9));
                for packet in [&more, &more.reversed(), &more] {
                    assert_eq!(sent(&tables, packet), DENIED);
                }
                let denier = if policy == SIDE { names.pod } else { peer };
                let denials = tables.denials.borrow();
                let of: Vec<_> = denials
                    .iter()
                    .map(|(key, count)| (key.pod, key.port.host(), key.by, *count))
                    .collect();
                assert_eq!(of, [(address(denier), 80, 9, 3)]);
                drop(denials);
                say(&mut tables, policy, class, PORT_80);
                assert!(passes(&tables, &more) && passes(&tables, &more.reversed()));
            }
        }
    }
}

#[test]
fn it_goes_on_when_policies_come_and_go() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            // With whom it began, and with whom it goes on.
            let all = [[true, true], [true, false], [false, true]];
            for (before, after) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
                let mut tables = two_pods();
                let set = |tables: &mut MemoryTables, [pod, of_peer]: [bool; 2]| {
                    track(tables, names.pod, pod);
                    track(tables, peer, of_peer);
                };
                set(&mut tables, before);
                let first = Sample::tcp_syn(client, server);
                let more = Sample::tcp(client, server);
                assert!(passes(&tables, &first) && passes(&tables, &answer(&first)));
                set(&mut tables, after);
                // What comes back is allowed because of what went there.
                assert!(passes(&tables, &more), "{before:?} {after:?}");
                let back = more.reversed();
                assert!(passes(&tables, &back), "{before:?} {after:?}");
                assert_eq!(rows(&tables).len(), 1);
                say(&mut tables, SIDE, PEERS_CLASS, Outcome::deny(9));
                say(&mut tables, OF_PEER, PODS_CLASS, Outcome::deny(9));
                assert_eq!(sent(&tables, &more), DENIED);
                assert_eq!(sent(&tables, &back), DENIED);
            }
        }
    }
}

/// As versions before this one remember them: a row for each end.
#[test]
fn two_rows_of_one_connection_end_together() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            let tables = two_pods();
            for (pod, other, inward) in [(client, server, false), (server, client, true)] {
                let key = ConnectionKey {
                    pod: address(pod.0),
                    other: address(other.0),
                    pod_port: Port::from_host(pod.1),
                    other_port: Port::from_host(other.1),
                    protocol: IPPROTO_TCP.into(),
                };
                let row = std::boxed::Box::new(Connection::established(inward, 0));
                let mut rows = tables.connections_of_pods.borrow_mut();
                rows.insert(key, std::boxed::Box::leak(row));
            }
            let (more, end) = (Sample::tcp(client, server), Sample::tcp_fin(client, server));
            for packet in [&more, &more.reversed(), &end, &end.reversed()] {
                assert!(passes(&tables, packet), "{packet:?}");
            }
            assert!(passes(&tables, &more));
            assert_eq!(rows(&tables), []);
        }
    }
}

#[test]
fn a_reset_ends_it_at_once() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            let tables = two_pods();
            let first = Sample::tcp_syn(client, server);
            let more = Sample::tcp(client, server);
            let reset = Sample {
                flags: 0x14,
                ..more.reversed()
            };
            for packet in [&first, &answer(&first), &more, &reset] {
                assert!(passes(&tables, packet), "{packet:?}");
            }
            assert_eq!(rows(&tables), []);
            assert_eq!(sent(&tables, &more.reversed()), UNKNOWN);
        }
    }
}

#[test]
fn what_is_allowed_one_way_is_not_the_other_way() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            let tables = two_pods();
            let first = Sample::tcp_syn(client, server);
            assert!(passes(&tables, &first) && passes(&tables, &answer(&first)));
            let other_way = Sample::tcp_syn(server, client);
            assert_eq!(sent(&tables, &other_way), DENIED);
            assert!(passes(&tables, &Sample::tcp(server, client)));
        }
    }
}

#[test]
fn a_full_table_asks_both() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        let [(pod, to), _] = ends(names.pod, peer);
        let first = Sample::tcp_syn(pod, to);
        let refused = Verdict::Drop(DropReason::ConnectionsFull);
        for (of_pod, of_peer, expect) in [
            ([SIDE, SIDE], [OF_PEER, OF_PEER], refused),
            // Answers come to the pod, and leave the peer.
            ([NO_POLICY, SIDE], [OF_PEER, OF_PEER], refused),
            ([SIDE, SIDE], [OF_PEER, NO_POLICY], refused),
            ([NO_POLICY, SIDE], [OF_PEER, NO_POLICY], TO_PEER),
        ] {
            let mut tables = MemoryTables {
                connections_limit: Some(0),
                places: None,
                ..two_pods()
            };
            for (pod, [ingress, egress]) in [(names.pod, of_pod), (peer, of_peer)] {
                let row = PolicyPod::new(ingress, egress);
                tables.policy_pods.insert(address(pod), row);
            }
            assert_eq!(sent(&tables, &first), expect, "{of_pod:?} {of_peer:?}");
        }
    }
}

#[test]
fn who_asks_the_same_again_is_answered_by_the_same_rules_alone() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        let ask = |tables: &MemoryTables, port| {
            let first = Sample::tcp_syn((names.pod, port), (peer, 80));
            sent(tables, &first)
        };
        let mut tables = two_pods();
        for port in [1000, 1001] {
            assert_eq!(ask(&tables, port), TO_PEER);
        }
        assert!(tables.connections_of_pods.borrow().is_empty(), "places");
        let rows = rows(&tables);
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|(_, row)| row.is_of_both()), "{rows:?}");
        let inward: Vec<bool> = rows.iter().map(|(_, row)| row.is_inward()).collect();
        assert_eq!(inward[0], inward[1]);
        // What neither end said before is not what the other one said.
        let turned = Sample::tcp_syn((peer, 1000), (names.pod, 443));
        assert_eq!(sent(&tables, &turned), DENIED);
        // Each end by its own rules.
        say(&mut tables, OF_PEER, PODS_CLASS, Outcome::deny(9));
        assert_eq!(ask(&tables, 1002), DENIED);
        say(&mut tables, OF_PEER, PODS_CLASS, PORT_80);
        say(&mut tables, SIDE, PEERS_CLASS, Outcome::deny(9));
        assert_eq!(ask(&tables, 1003), DENIED);
        say(&mut tables, SIDE, PEERS_CLASS, PORT_80);
        assert_eq!(ask(&tables, 1004), TO_PEER);
        // What begins is somebody else's from now on.
        tables.policy_state.flags = POLICY_RETIRED;
        assert_eq!(ask(&tables, 1005), Verdict::Stack);
        assert_eq!(tables.all_connections().len(), 3);
    }
}

#[test]
fn a_connection_leaves_its_place_with_its_last_packet() {
    for (names, peer) in FAMILIES.iter().zip(PEERS) {
        for (client, server) in ends(names.pod, peer) {
            let mut tables = two_pods();
            let (first, more) = (Sample::tcp_syn(client, server), Sample::tcp(client, server));
            let end = Sample::tcp_fin(client, server);
            let all = [
                &first,
                &answer(&first),
                &more,
                &more.reversed(),
                &end.reversed(),
                &end,
            ];
            for packet in all {
                assert!(passes(&tables, packet), "{packet:?}");
                assert_eq!(tables.all_connections().len(), 1);
            }
            let last = more.reversed();
            assert!(passes(&tables, &last));
            assert!(tables.all_connections().is_empty());
            assert!(!passes(&tables, &last), "it is over");
            // While somebody looks at connections that have ended it stays.
            tables.policy_state.flags = POLICY_OBSERVES;
            for packet in all.into_iter().chain([&last]) {
                assert!(passes(&tables, packet), "{packet:?}");
            }
            let rows = rows(&tables);
            assert!(rows.len() == 1 && rows[0].1.has_ended(), "{rows:?}");
        }
    }
}
