//! Network policies in every engine: rows as the plan makes them, and real sockets
//! between namespaces. Needs root.

pub(crate) mod parts;
pub(crate) mod rows;

use std::net::SocketAddr;

use crate::common::{Engine, Node, Pod, ip, net, service, unrestricted};
use crate::services::{SERVICES, node, nodes, ranges};
use parts::changes_between_parts_are_no_drift;
use ripstop_datapath::{Deny, PolicySettings};
use ripstop_model::Protocol;
use ripstop_plan::policy::Direction;
use ripstop_plan::{Change, FrontendKind, Outside, Tables};
use rows::{CLASS, EGRESS, INGRESS, NOBODY, OPEN, Rows, any, port};

const FAMILIES: [usize; 2] = [0, 1];

fn apply<E: Engine>(node: &mut Node<E>, change: &Change) {
    node.run(|engine| engine.apply(change)).unwrap();
}

pub(crate) fn serving(pod: &Pod) -> crate::common::process::Process {
    let mut server = pod.process();
    server.serve(8080);
    server
}

fn a_pod_is_closed_until_its_row_comes<E: Engine>() {
    let mut node = node::<E>("closed");
    let other = node.add_pod();
    let _other_server = serving(&other);
    let pod = node.make_pod(Vec::new());
    node.run(|engine| engine.add_pod(&pod.local)).unwrap();
    let mut server = serving(&pod);
    let mut client = other.process();
    let mut here = node.process();
    here.serve(9090);
    for family in FAMILIES {
        let to = pod.at(8080)[family];
        assert!(client.is_dropped(to));
        assert!(server.is_dropped(other.at(8080)[family]));
        // Its own node reaches it always, and the other way round.
        assert!(here.tcp(to).starts_with(&pod.local.container_id));
        let on_node = SocketAddr::new(node.addresses[family], 9090);
        assert!(!server.tcp(on_node).starts_with("error"));
    }
    apply(&mut node, &unrestricted([&pod.local]));
    for family in FAMILIES {
        assert!(!client.tcp(pod.at(8080)[family]).starts_with("error"));
        assert!(!server.tcp(other.at(8080)[family]).starts_with("error"));
    }
    // Its row goes: closed again. Taken in again: as it was.
    let mut gone = unrestricted([&pod.local]);
    gone.policy.pods.values_mut().for_each(|row| *row = None);
    apply(&mut node, &gone);
    for to in pod.at(8080) {
        assert!(client.is_dropped(to));
    }
    apply(&mut node, &unrestricted([&pod.local]));
    node.run(|engine| engine.add_pod(&pod.local)).unwrap();
    for to in pod.at(8080) {
        assert!(!client.tcp(to).starts_with("error"));
    }
}

fn classes_and_ports_decide<E: Engine>() {
    let mut node = node::<E>("rules");
    let pods = [node.add_pod(), node.add_pod(), node.add_pod()];
    let [friend, pod, stranger] = &pods;
    let mut servers = pods.each_ref().map(serving);
    let mut rows = Rows::default();
    rows.pod(pod, [INGRESS, NOBODY])
        .class(friend.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, port(Protocol::Tcp, 8080, 8080));
    apply(&mut node, &rows.change());
    for family in FAMILIES {
        let to = pod.at(8080)[family];
        assert!(!servers[0].tcp(to).starts_with("error"));
        assert!(servers[0].is_silent(to));
        assert!(servers[2].is_dropped(to));
        // Another port.
        assert!(servers[0].is_dropped(SocketAddr::new(to.ip(), 8081)));
        // Its answers and its own connections are not asked for.
        assert!(
            !servers[1]
                .tcp(stranger.at(8080)[family])
                .starts_with("error")
        );
        assert!(node.process().tcp(to).starts_with(&pod.local.container_id));
    }
    // What it may reach.
    let mut rows = Rows::default();
    rows.pod(pod, [NOBODY, EGRESS])
        .class(friend.addresses.map(Into::into), CLASS)
        .rule(EGRESS, CLASS, any());
    apply(&mut node, &rows.change());
    for family in FAMILIES {
        assert!(!servers[1].tcp(friend.at(8080)[family]).starts_with("error"));
        assert!(servers[1].is_dropped(stranger.at(8080)[family]));
        assert!(servers[1].is_silent(stranger.at(8080)[family]));
        assert!(!servers[2].tcp(pod.at(8080)[family]).starts_with("error"));
    }
}

fn services_are_judged_by_their_backend<E: Engine>() {
    let mut node = node::<E>("service");
    let (client, pod) = (node.add_pod(), node.add_pod());
    let mut server = serving(&pod);
    let mut process = client.process();
    let mut rows = Rows::default();
    rows.pod(&pod, [INGRESS, EGRESS])
        .pod(&client, [NOBODY, EGRESS])
        .class(client.addresses.map(Into::into), CLASS)
        .class(pod.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, port(Protocol::Tcp, 8080, 8080))
        .rule(EGRESS, CLASS, port(Protocol::Tcp, 8080, 8081));
    apply(&mut node, &rows.change());
    for (family, to) in SERVICES.into_iter().enumerate() {
        for backend in [8080, 8082] {
            node.serve(to, Protocol::Tcp, &[pod.at(backend)[family]]);
            assert_eq!(process.is_dropped(to), backend == 8082);
        }
        // Itself, whatever is in force.
        node.serve(to, Protocol::Udp, &[pod.at(8080)[family]]);
        assert!(!server.udp(to).starts_with("error"));
        assert!(!server.udp(pod.at(8080)[family]).starts_with("error"));
    }
}

fn connections_follow_changes<E: Engine>() {
    let mut node = node::<E>("changes");
    let (client, pod) = (node.add_pod(), node.add_pod());
    let _server = serving(&pod);
    for family in FAMILIES {
        let mut process = client.process();
        let to = pod.at(8080)[family];
        assert_eq!(process.hold(to), to.to_string());
        let mut rows = Rows::default();
        rows.pod(&pod, [INGRESS, NOBODY])
            .class(client.addresses.map(Into::into), CLASS)
            .rule(INGRESS, CLASS, any());
        apply(&mut node, &rows.change());
        assert_eq!(process.held(), "still there");
        apply(&mut node, &rows.remove_rule(INGRESS, CLASS));
        assert!(process.held().starts_with("error"));
        // Its second try is let through.
        apply(&mut node, &rows.change());
        assert_eq!(process.held(), "still there");
        apply(&mut node, &rows.remove());
        assert_eq!(process.held(), "still there");
        // Now it need not wait for what does not come.
        let reject = PolicySettings {
            deny: Deny::Reject,
            observe: false,
        };
        node.run(|engine| engine.set_policy_settings(reject))
            .unwrap();
        // By the block that it is in, as long as it is; and by its own address, once
        // that is known.
        let block = [net("10.244.0.0/16"), net("fd00:244::/32")];
        let mut rows = Rows::default();
        rows.pod(&pod, [INGRESS, NOBODY])
            .class(block, CLASS)
            .rule(INGRESS, CLASS, any());
        let mut closed = rows.clone();
        closed.class(client.addresses.map(Into::into), OPEN).rule(
            INGRESS,
            OPEN,
            port(Protocol::Udp, 0, u16::MAX),
        );
        let mut elsewhere = Rows::default();
        elsewhere
            .pod(&pod, [INGRESS, NOBODY])
            .class(block, OPEN)
            .rule(INGRESS, OPEN, port(Protocol::Udp, 0, u16::MAX));
        for denying in [closed, elsewhere] {
            apply(&mut node, &rows.change());
            assert_eq!(process.hold(to), to.to_string());
            assert_eq!(process.held(), "still there");
            apply(&mut node, &denying.change());
            assert!(process.held().starts_with("error"));
            apply(&mut node, &denying.remove());
        }
        node.run(|engine| engine.set_policy_settings(PolicySettings::default()))
            .unwrap();
    }
}

fn clients_of_other_nodes_and_outside<E: Engine>() {
    let [mut one, mut other] = nodes::<E>("far");
    let (pod, far) = (one.add_pod(), other.add_pod());
    let _server = serving(&pod);
    let (mut far_process, mut outside) = (far.process(), other.process());
    let addresses = other.addresses;
    for family in FAMILIES {
        let to = SocketAddr::new(one.addresses[family], 30080);
        let mut change = service(&to.to_string(), Protocol::Tcp, &[pod.at(8080)[family]]);
        for row in change.frontends.values_mut().flatten() {
            row.kind = FrontendKind::NodePort;
            row.outside = Outside::Cluster;
        }
        apply(&mut one, &change);
        for (allowed, mut both) in [(true, Rows::default()), (false, Rows::default())] {
            both.pod(&pod, [INGRESS, NOBODY]);
            if allowed {
                both.class(addresses.map(Into::into), CLASS)
                    .rule(INGRESS, CLASS, any());
            }
            apply(&mut one, &both.change());
            // By its own address, though the pod sees the node's.
            assert_eq!(!outside.is_dropped(to), allowed);
            assert_eq!(!outside.is_dropped(pod.at(8080)[family]), allowed);
            // Another address of the same node.
            assert!(far_process.is_dropped(pod.at(8080)[family]));
            apply(&mut one, &both.remove());
        }
        apply(&mut one, &unrestricted([&pod.local]));
        assert!(!far_process.tcp(pod.at(8080)[family]).starts_with("error"));
    }
}

fn the_longest_prefix_is_the_class<E: Engine>() {
    let mut node = node::<E>("prefixes");
    let (near, pod, hidden) = (node.add_pod(), node.add_pod(), node.add_pod());
    let _server = serving(&pod);
    let mut rows = Rows::default();
    let nets = ["10.244.0.0/16", "fd00:244::/32"].map(net);
    rows.pod(&pod, [INGRESS, NOBODY])
        .class(nets, CLASS)
        .rule(INGRESS, CLASS, any())
        .class(hidden.addresses.map(Into::into), OPEN)
        .rule(INGRESS, OPEN, port(Protocol::Udp, 0, u16::MAX));
    apply(&mut node, &rows.change());
    let (mut near, mut hidden_process) = (near.process(), hidden.process());
    for to in pod.at(8080) {
        assert!(!near.tcp(to).starts_with("error"));
        assert!(hidden_process.is_dropped(to));
        assert!(!hidden_process.udp(to).starts_with("error"));
    }
    // The longer one goes.
    let mut gone = Change::default();
    for ip in hidden.addresses {
        gone.policy.classes.insert(ip.into(), None);
    }
    apply(&mut node, &gone);
    for to in pod.at(8080) {
        assert!(!hidden_process.tcp(to).starts_with("error"));
    }
}

fn what_is_denied_is_counted_and_may_be_refused<E: Engine>() {
    let mut node = node::<E>("denied");
    let (client, pod) = (node.add_pod(), node.add_pod());
    let _server = serving(&pod);
    let mut process = client.process();
    let mut rows = Rows::default();
    rows.pod(&pod, [INGRESS, NOBODY]);
    apply(&mut node, &rows.change());
    for family in FAMILIES {
        let to = pod.at(8080)[family];
        assert!(process.is_dropped(to));
        let denials = node.run(|engine| engine.denials()).unwrap();
        let of = |protocol: Protocol| {
            let mut rows = denials.rows.iter().filter(move |row| {
                (row.pod, row.other) == (pod.addresses[family], client.addresses[family])
                    && row.protocol == protocol as u8
            });
            rows.next().copied()
        };
        let row = of(Protocol::Tcp).expect("it is counted");
        assert_eq!((row.direction, row.port), (Direction::Ingress, 8080));
        assert!(row.packets >= 2, "{row:?}");
        assert_eq!(of(Protocol::Udp), None);
        assert_eq!(denials.lost, 0);
    }
    let reject = PolicySettings {
        deny: Deny::Reject,
        observe: false,
    };
    node.run(|engine| engine.set_policy_settings(reject))
        .unwrap();
    for to in pod.at(8080) {
        assert_eq!(process.tcp(to), "error: ConnectionRefused");
        // "Administratively prohibited".
        assert!(process.udp_connected(to).starts_with("error"));
    }
}

fn the_kernel_says_what_is_in_force<E: Engine>() {
    let mut node = node::<E>("readback");
    let (client, pod) = (node.add_pod(), node.add_pod());
    let _server = serving(&pod);
    let mut rows = Rows::default();
    rows.pod(&client, [NOBODY, NOBODY])
        .pod(&pod, [INGRESS, EGRESS])
        .class(client.addresses.map(Into::into), CLASS)
        .class([net("192.0.2.0/24"), net("2001:db8::/32")], OPEN)
        .class([net("192.0.2.128/25")], CLASS)
        .rule(INGRESS, CLASS, port(Protocol::Tcp, 8080, 9000))
        .rule(EGRESS, OPEN, any());
    let change = rows.change();
    apply(&mut node, &change);
    let mut desired = Tables::default();
    desired.apply(&ranges());
    desired.apply(&change);
    let expect = |desired: &Tables| {
        let mut policy = desired.policy.clone();
        policy.attributions.clear();
        policy
    };
    let read = node.run(|engine| engine.policies()).unwrap();
    assert_eq!(read, expect(&desired));
    let mut process = client.process();
    let to = pod.at(8080)[0];
    assert_eq!(process.hold(to), to.to_string());
    let connections = node.run(|engine| engine.connections()).unwrap();
    let known = connections
        .iter()
        .filter(|c| c.client.ip() == client.addresses[0] && c.server == to);
    assert_eq!(known.count(), 1);
    // Nobody drives; then somebody does again.
    node.engine = None;
    assert_eq!(process.held(), "still there");
    node.open();
    let known = [client.local.clone(), pod.local.clone()];
    for pod in &known {
        node.run(|engine| engine.add_pod(pod)).unwrap();
    }
    assert_eq!(process.held(), "still there");
    let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
    assert_eq!(drift.repaired, [""; 0]);
    assert_eq!(process.held(), "still there");
    // Other rows by the next time.
    apply(&mut node, &rows.remove_rule(INGRESS, CLASS));
    let drift = node.run(|engine| engine.audit(&desired, &known)).unwrap();
    assert!(!drift.repaired.is_empty());
    assert!(!process.tcp(to).starts_with("error"));
    let read = node.run(|engine| engine.policies()).unwrap();
    assert_eq!(read, expect(&desired));
    // A pod that the plan does not know is closed.
    let mut fewer = desired.clone();
    fewer.policy.pods.remove(&ip(&to.ip().to_string()));
    node.run(|engine| engine.audit(&fewer, &known)).unwrap();
    assert!(process.is_dropped(to));
}

fn pods_speak_for_themselves_alone<E: Engine>() {
    let mut node = node::<E>("spoof");
    let (pod, other) = (node.add_pod(), node.add_pod());
    let _server = serving(&other);
    let mut process = pod.process();
    let spoofed = |node: &mut Node<E>| {
        let drops = node.run(|engine| engine.status()).drops;
        let row = drops.into_iter().find(|(reason, _)| *reason == "spoofed");
        row.expect("it is counted").1
    };
    for (family, text) in ["10.244.1.200", "fd00:244:1::200"].into_iter().enumerate() {
        // The node would know the way back.
        let stolen = ip(text);
        pod.add_address(stolen);
        node.way_by_pod(&pod, stolen, 1500);
        let to = other.at(8080)[family];
        let before = spoofed(&mut node);
        assert!(process.is_silent_from(stolen, to));
        assert!(spoofed(&mut node) > before);
        assert!(!process.is_silent_from(pod.addresses[family], to));
        assert!(!process.tcp(to).starts_with("error"));
    }
}

in_both_engines!(
    a_pod_is_closed_until_its_row_comes,
    classes_and_ports_decide,
    services_are_judged_by_their_backend,
    connections_follow_changes,
    clients_of_other_nodes_and_outside,
    the_longest_prefix_is_the_class,
    what_is_denied_is_counted_and_may_be_refused,
    the_kernel_says_what_is_in_force,
    pods_speak_for_themselves_alone,
    changes_between_parts_are_no_drift,
);
