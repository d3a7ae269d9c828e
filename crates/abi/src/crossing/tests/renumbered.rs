//! What a pod begins straight to a backend that it also reaches by a service,
//! from the same port.

use super::*;

/// The service leads to whom `names` say, whoever that is.
fn led_to(names: &Names, backend: &str) -> MemoryTables {
    let mut tables = tables();
    for protocol in [IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP] {
        let row = Frontend::new(9000 + u32::from(protocol), 1, 0);
        let address = at(names.service, 80, protocol);
        tables.serve(address, row, &[to(backend, 8080)]);
    }
    tables
}

/// Here, and on another node: who it is, by which link its packets come, and what
/// becomes of those for it.
fn backends(names: &Names) -> [(&'static str, u32, Verdict); 2] {
    let gateway = address(names.far_node);
    let ifindex = UPLINK;
    [
        (names.pod, POD, DELIVER),
        (names.far_pod, UPLINK, Verdict::Forward { ifindex, gateway }),
    ]
}

/// The later packets of what begins with `first`.
fn later(first: &Sample) -> Sample {
    Sample {
        flags: 0x10,
        ..first.clone()
    }
}

/// The answer to it.
fn answer(first: &Sample) -> Sample {
    Sample {
        flags: 0x12,
        ..first.reversed()
    }
}

const TOLD: Verdict = Verdict::Deliver { ifindex: OTHER };

/// Every combination: what goes by the service and what straight to the backend.
fn for_all(test: impl Fn(&Names, MemoryTables, Make, (&'static str, u32, Verdict))) {
    for names in &FAMILIES {
        for make in KINDS {
            for backend in backends(names) {
                test(names, led_to(names, backend.0), make, backend);
            }
        }
    }
}

#[test]
fn two_destinations_that_are_one_backend_are_told_apart_by_port() {
    for_all(|names, tables, make, (backend, link, there)| {
        let (client, server) = ((names.other, 1000), (backend, 8080));
        let led = make(client, (names.service, 80));
        let straight = make(client, server);
        assert_eq!(turns(&tables, OTHER, &led, &straight), there);
        // Now the same, as the socket's programs lead it.
        let mut bytes = straight.bytes();
        assert_eq!(through(&tables, &mut bytes, OTHER), there);
        assert!(checksums_are_right(&bytes));
        let flows = tables.flows.borrow();
        let key = FlowKey {
            source: address(client.0),
            destination: address(backend),
            source_port: Port::from_host(1000),
            destination_port: Port::from_host(8080),
            protocol: straight.protocol.into(),
        };
        let port = flows[&key].source_port.host();
        drop(flows);
        assert_ne!(port, 1000);
        let aside = make((names.other, port), server);
        // All packets of both go on, both ways, in any order.
        for _ in 0..2 {
            let _ = turns(&tables, OTHER, &straight, &aside);
            let _ = turns(&tables, OTHER, &later(&straight), &later(&aside));
            let _ = turns(&tables, OTHER, &later(&led), &later(&straight));
            let (came, becomes) = (answer(&aside), answer(&straight));
            assert_eq!(turns(&tables, link, &came, &becomes), TOLD);
            let (came, becomes) = (answer(&straight), answer(&led));
            assert_eq!(turns(&tables, link, &came, &becomes), TOLD);
        }
        // Another port is nobody's.
        let other = make((names.other, 1001), server);
        assert_eq!(turns(&tables, OTHER, &other, &other), there);
        assert_eq!(turns(&tables, link, &answer(&other), &answer(&other)), TOLD);
    });
}

#[test]
fn a_port_is_free_again_after_its_flow() {
    for_all(|names, tables, make, (backend, link, there)| {
        let (client, server) = ((names.other, 1000), (backend, 8080));
        let led = make(client, (names.service, 80));
        let straight = make(client, server);
        assert_eq!(turns(&tables, OTHER, &led, &straight), there);
        if led.protocol == IPPROTO_TCP {
            let end = |sample: &Sample| Sample {
                flags: 0x11,
                ..sample.clone()
            };
            let _ = turns(&tables, OTHER, &end(&led), &end(&straight));
            let _ = turns(&tables, link, &end(&answer(&straight)), &end(&answer(&led)));
        } else {
            tables.now.set(tables.now.get() + 120);
        }
        assert_eq!(turns(&tables, OTHER, &straight, &straight), there);
        let came = answer(&straight);
        assert_eq!(turns(&tables, link, &came, &came), TOLD);
    });
}

#[test]
fn the_next_engine_finds_a_port_for_what_begins_while_this_one_gives_way() {
    for_all(|names, mut tables, make, (backend, _, there)| {
        let (client, server) = ((names.other, 1000), (backend, 8080));
        let led = make(client, (names.service, 80));
        let straight = make(client, server);
        assert_eq!(turns(&tables, OTHER, &led, &straight), there);
        tables.uplinks.get_mut(&0).unwrap().set_retired();
        let mut bytes = straight.bytes();
        assert_eq!(through(&tables, &mut bytes, OTHER), Verdict::Stack);
        assert_eq!(bytes, straight.bytes());
        // Who was led goes on.
        assert_eq!(
            turns(&tables, OTHER, &later(&led), &later(&straight)),
            there
        );
    });
}

/// Its row was written anew just as that was noted in it.
#[test]
fn a_pod_whose_note_was_lost_gets_it_again_with_an_answer() {
    for_all(|names, tables, make, (backend, link, _)| {
        let (client, server) = ((names.other, 1000), (backend, 8080));
        let straight = make(client, server);
        let led = make(client, (names.service, 80));
        let _ = turns(&tables, OTHER, &led, &straight);
        let _ = through(&tables, &mut straight.bytes(), OTHER);
        tables.translated.borrow_mut().clear();
        tables.set_translated(&address(client.0));
        tables.now.set(tables.now.get() + 1);
        let flows = tables.flows.borrow();
        let aside = flows.values().find(|flow| {
            flow.flags & FLOW_REPLY == 0 && flow.source_port != Port::from_host(client.1)
        });
        let aside = make((client.0, aside.unwrap().source_port.host()), server);
        drop(flows);
        let _ = turns(&tables, link, &answer(&aside), &answer(&straight));
        let _ = turns(&tables, OTHER, &later(&straight), &later(&aside));
    });
}

#[test]
fn what_another_engine_leads_keeps_its_port_and_is_left_to_it() {
    for names in &FAMILIES {
        for make in KINDS {
            let mut tables = tables();
            tables.ports = flow_ports(1);
            let port = FIRST_PORT;
            let request = make((names.client, 1000), (names.node, 30_080));
            let _ = through(&tables, &mut request.bytes(), UPLINK);
            for flow in tables.flows.borrow_mut().values_mut() {
                let flags = flow.flags | crate::FLOW_AWAITED;
                *flow = std::boxed::Box::leak(Flow { flags, ..**flow }.into());
            }
            let taken = Verdict::Drop(DropReason::PortsExhausted);
            let other = make((names.client, 1001), (names.node, 30_080));
            assert_eq!(through(&tables, &mut other.bytes(), UPLINK), taken);
            let answer = make((names.pod, 8080), (names.node, port));
            let mut bytes = answer.bytes();
            assert_eq!(through(&tables, &mut bytes, POD), Verdict::Stack);
            assert_eq!(bytes, answer.bytes());
        }
    }
}
