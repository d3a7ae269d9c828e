use ripstop_model::{Protocol, ServicePort, SliceEndpoint, SlicePort};

use std::net::IpAddr;

use super::*;

fn service(name: &str, ip: u8) -> Service {
    Service {
        cluster_ips: vec![IpAddr::from([10, 96, 0, ip])],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            app_protocol: None,
        }],
        ..Service::new(ObjectKey::new("shop", name))
    }
}

fn slice(service: &str, pods: &[u8]) -> EndpointSlice {
    let address = |pod: &u8| IpAddr::from([10, 244, 0, *pod]);
    let endpoints = pods.iter().map(|pod| SliceEndpoint::new(address(pod)));
    EndpointSlice {
        key: ObjectKey::new("shop", format!("{service}-1")),
        service: service.to_owned(),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: endpoints.collect(),
        proxied: true,
    }
}

#[test]
fn a_change_has_only_the_rows_of_its_object() {
    let mut planner = Planner::default();
    for ip in 1..=100 {
        planner.upsert_service(service(&format!("s{ip}"), ip));
        planner.upsert_slice(slice(&format!("s{ip}"), &[ip]));
    }
    let first = planner.take_update();
    assert_eq!((first.rows.frontends.len(), first.names.len()), (100, 100));

    planner.upsert_slice(slice("s7", &[7, 107]));
    let update = planner.take_update();
    let rows: Vec<_> = update.rows.frontends.into_iter().collect();
    let [(frontend, Some(row))] = rows.as_slice() else {
        panic!("one row expected, got {rows:?}");
    };
    assert_eq!(frontend.to_string(), "10.96.0.7:80/TCP");
    assert_eq!(row.backends.len(), 2);
    assert!(
        update.names.is_empty(),
        "a ClusterIP's name does not change"
    );

    planner.upsert_slice(slice("s7", &[7, 107]));
    planner.upsert_service(service("s7", 7));
    assert!(planner.take_update().is_empty(), "nothing changed");
}

#[test]
fn what_another_proxy_serves_has_no_rows() {
    let mut planner = Planner::default();
    planner.upsert_service(service("web", 1));
    planner.upsert_slice(slice("web", &[2]));
    let backends = |planner: &mut Planner| {
        let rows = planner.take_update().rows.frontends.into_values();
        rows.map(|row| row.map(|row| row.backends.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(backends(&mut planner), [Some(1)]);
    // Its slices alone: nobody is behind it.
    planner.upsert_slice(EndpointSlice {
        proxied: false,
        ..slice("web", &[2])
    });
    assert_eq!(backends(&mut planner), [Some(0)]);
    planner.upsert_slice(slice("web", &[2]));
    assert_eq!(backends(&mut planner), [Some(1)]);
    planner.upsert_service(Service {
        proxied: false,
        ..service("web", 1)
    });
    assert_eq!(backends(&mut planner), [None]);
}

#[test]
fn two_services_with_one_address_are_reported() {
    let mut planner = Planner::default();
    planner.upsert_service(service("b", 1));
    planner.upsert_service(service("a", 1));
    let problems = planner.take_update().problems.unwrap();
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["Service shop/b: 10.96.0.1:80/TCP: service shop/a has this address and port"]
    );
    planner.remove_service(&ObjectKey::new("shop", "a"));
    assert!(planner.problems().is_empty());
    let update = planner.take_update();
    let owners = update
        .rows
        .frontends
        .into_values()
        .map(|row| row.unwrap().service);
    assert_eq!(owners.collect::<Vec<_>>(), [ObjectKey::new("shop", "b")]);
}
