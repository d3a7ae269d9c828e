//! Tables that are full: who is refused, and what grows.

use ripstop_datapath::ebpf::Limits;
use ripstop_datapath::{Datapath, Error};
use ripstop_model::Protocol;
use ripstop_plan::policy::ClassId;
use ripstop_plan::{Change, Tables};

use crate::common::process::Process;
use crate::common::{Node, Pod, node, service, unrestricted};
use crate::policies::rows::{CLASS, EGRESS, INGRESS, NOBODY, Rows, any, port};
use crate::services::says;

#[test]
fn a_full_table_names_the_row_and_keeps_the_others() {
    let mut node: Node = node("full");
    let pod = node.add_pod();
    let to = pod.at(8080)[0];
    for port in 1..=64 {
        node.serve(&format!("10.96.0.5:{port}"), Protocol::Tcp, &[to]);
    }
    let change = service("10.96.0.6:80", Protocol::Tcp, &[to]);
    let error = node.run(|engine| engine.apply(&change)).unwrap_err();
    assert!(
        matches!(&error, Error::TableFull { table: "frontends", limit: 64, row } if row == "10.96.0.6:80/TCP"),
        "{error}"
    );
    let tables = node.run(|engine| engine.status()).tables;
    assert!(tables.contains(&("frontends", 64, 64)), "{tables:?}");
    assert!(tables.contains(&("backends", 64, 256)), "{tables:?}");
}

#[test]
fn tables_grow_under_connections() {
    let mut node: Node = node("grow");
    node.limit(Limits::default());
    let pods = [node.add_pod(), node.add_pod()];
    let (mut server, mut client) = (pods[1].process(), pods[0].process());
    server.serve(8080);
    let to = pods[1].at(8080)[0];
    let frontend = |n: usize| format!("10.96.{}.{}:{}", n / 8000, n / 100 % 80, n % 100 + 1);
    let services = |numbers: std::ops::Range<usize>| {
        let mut change = Change::default();
        for number in numbers {
            let one = service(&frontend(number), Protocol::Tcp, &[to]);
            change.frontends.extend(one.frontends);
        }
        change
    };
    node.serve("10.96.99.1:80", Protocol::Udp, &[to]);
    node.run(|engine| engine.apply(&services(0..100))).unwrap();
    assert_eq!(client.hold(frontend(0)), frontend(0));
    let says = says(&pods[1], &pods[0], 0);
    assert_eq!(client.hold_udp("10.96.99.1:80"), says);
    let mut rows = Rows::default();
    rows.pod(&pods[1], [INGRESS, NOBODY])
        .class(pods[0].addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, any());
    for class in 0..40_000 {
        rows.rule(EGRESS, ClassId::from_number(1000 + class), any());
    }
    for more in [services(100..20_000), rows.change()] {
        node.run(|engine| engine.apply(&more)).unwrap();
        // Who was there goes on, and who is new is led.
        assert_eq!(client.held(), "still there");
        assert_eq!(client.held_udp(), says);
        for number in [0, 50, 19_999] {
            let to = frontend(number);
            assert_eq!(client.tcp(&to), format!("{says} peer {to}"));
        }
    }
    // The next engine takes them as they are.
    node.open();
    let status = node.run(|engine| engine.status());
    assert!(status.adopted);
    assert!(status.tables.contains(&("frontends", 20_001, 65_536)));
    assert!(status.tables.contains(&("policy_pairs", 40_003, 524_288)));
    assert_eq!(client.held(), "still there");
    assert_eq!(client.held_udp(), says);
}

/// An address of a pod may fill a quarter of the table with what it begins, so one
/// alone does not. Which rows no answer needs, and which ones stay.
#[test]
fn a_full_table_of_connections_refuses_new_ones() {
    let mut node: Node = node("connections");
    // The first one of places, to which hardly anybody is led.
    node.limit(Limits {
        connections: 64,
        places: 1,
        ..Limits::default()
    });
    let server = node.add_pod();
    let pods: [Pod; 5] = std::array::from_fn(|_| node.add_pod());
    let mut processes = pods.each_ref().map(Pod::process);
    let mut other = server.process();
    other.serve(8080);
    let mut rows = Rows::default();
    for pod in &pods {
        rows.pod(pod, [INGRESS, NOBODY]);
    }
    rows.class(server.addresses.map(Into::into), CLASS).rule(
        INGRESS,
        CLASS,
        port(Protocol::Tcp, 8080, 8080),
    );
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    let [to, to_v6] = server.at(8080);
    let [first, .., last] = &mut processes;
    first.serve(8080);
    assert_eq!(first.hold(to), to.to_string());
    assert_eq!(last.hold(to), to.to_string());
    let share = 64 / 4;
    // Each by a port of its own: a row of its own.
    let ask = |process: &mut Process, asks: u16| {
        let answered = (20_000..20_000 + asks).filter(|port| {
            process.send_from(*port);
            !process.udp(to).starts_with("error")
        });
        let answered = answered.count();
        process.send_from(0);
        answered
    };
    // One is held.
    assert_eq!(ask(first, share), usize::from(share) - 1);
    assert!(first.is_dropped(to));
    assert_eq!(ask(&mut processes[1], share), 16);
    assert_eq!(ask(&mut processes[2], share), 16);
    // Of the last quarter one row is the last pod's.
    assert_eq!(ask(&mut processes[3], share), 15);
    let [first, .., last] = &mut processes;
    assert!(last.is_dropped(to_v6));
    for process in [first, last] {
        assert_eq!(process.held(), "still there");
    }
    let status = node.run(|engine| engine.status());
    let mut drops = status.drops.into_iter();
    let full = drops.find(|(reason, _)| *reason == "connections_full");
    assert!(full.is_some_and(|(_, count)| count > 0), "{full:?}");
    // Who asks the pod gets answers: they pass by themselves.
    for to in pods[0].at(8080) {
        assert!(!other.tcp(to).starts_with("error"));
    }
}

/// Connections of TCP begin in places, and take none of the rows.
#[test]
fn who_has_no_row_left_may_have_a_place() {
    let mut node: Node = node("places");
    let (server, pod) = (node.add_pod(), node.add_pod());
    let (mut process, mut other) = (pod.process(), server.process());
    other.serve(8080);
    let mut rows = Rows::default();
    rows.pod(&pod, [INGRESS, NOBODY]);
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    let [to, to_v6] = server.at(8080);
    // A quarter of the rows.
    for (port, answered) in (20_000..20_017).zip([true; 16].into_iter().chain([false])) {
        process.send_from(port);
        assert_eq!(!process.udp(to).starts_with("error"), answered, "{port}");
    }
    process.send_from(0);
    assert_eq!(process.hold(to), to.to_string());
    assert!(!process.tcp(to_v6).starts_with("error"));
    assert_eq!(process.held(), "still there");
}

/// A row that does not fit closes the pods that it is about, and no others.
#[test]
fn a_full_table_of_policies_closes_its_pods() {
    let mut node: Node = node("pairs");
    let (a, b, c) = (node.add_pod(), node.add_pod(), node.add_pod());
    let _servers = [&a, &b].map(|pod| {
        let mut process = pod.process();
        process.serve(8080);
        process
    });
    let mut rows = Rows::default();
    rows.pod(&a, [INGRESS, NOBODY])
        .pod(&b, [EGRESS, NOBODY])
        .class(c.addresses.map(Into::into), CLASS)
        .rule(EGRESS, CLASS, any());
    node.run(|engine| engine.apply(&rows.change())).unwrap();
    for class in 0..64 {
        rows.rule(INGRESS, ClassId::from_number(1000 + class), any());
    }
    rows.rule(INGRESS, CLASS, any());
    let error = node.run(|engine| engine.apply(&rows.change())).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::TableFull {
                table: "policy_pairs",
                limit: 64,
                ..
            }
        ),
        "{error}"
    );
    let mut client = c.process();
    for (closed, open) in a.at(8080).into_iter().zip(b.at(8080)) {
        assert!(client.is_dropped(closed));
        assert!(!client.tcp(open).starts_with("error"));
    }
    // When they fit it opens.
    let mut fewer = Rows::default();
    fewer
        .pod(&a, [INGRESS, NOBODY])
        .pod(&b, [EGRESS, NOBODY])
        .class(c.addresses.map(Into::into), CLASS)
        .rule(INGRESS, CLASS, any())
        .rule(EGRESS, CLASS, any());
    let mut desired = Tables::default();
    desired.apply(&unrestricted([&c.local]));
    desired.apply(&fewer.change());
    let pods = [&a, &b, &c].map(|pod| pod.local.clone());
    node.run(|engine| engine.audit(&desired, &pods)).unwrap();
    for to in [a.at(8080), b.at(8080)].concat() {
        assert!(!client.tcp(to).starts_with("error"), "{to}");
    }
}
