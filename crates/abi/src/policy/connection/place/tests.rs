use core::cell::RefCell;
use core::net::IpAddr;
use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;
use crate::test_packets::MemoryTables;
use crate::{BY_DEFAULT, IPPROTO_UDP, Outcome, Port};

const NOW: u32 = 1000;

fn tables() -> MemoryTables {
    MemoryTables {
        places: Some(RefCell::default()),
        ..MemoryTables::default()
    }
}

fn key(pod_port: u16) -> ConnectionKey {
    let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    ConnectionKey {
        pod: address("fd00:244::5"),
        other: address("fd00:244::6"),
        pod_port: Port::from_host(pod_port),
        other_port: Port::from_host(80),
        protocol: IPPROTO_TCP.into(),
    }
}

/// Two connections that are led to one place.
fn two_of_one_place() -> (ConnectionKey, ConnectionKey) {
    let first = key(1);
    let same = |port: &u16| index(&key(*port)) == index(&first);
    (first, key((2..=u16::MAX).find(same).unwrap()))
}

fn row(last: u32) -> Connection {
    let mut row = Connection::new(false, last);
    row.set_outcome(Outcome::allow(BY_DEFAULT), 7);
    row
}

/// Of [`Connections::policing`], which these are put into.
fn put(tables: &MemoryTables, key: &ConnectionKey, row: &Connection, is_new: bool) -> bool {
    let policing = tables.policing().unwrap();
    (policing.key, policing.row) = (*key, *row);
    policing.is_new = is_new.into();
    remember(tables, policing)
}

fn end(tables: &MemoryTables, key: &ConnectionKey) {
    forget(tables, key, &row(NOW));
    assert!(find(tables, key).is_none());
}

fn in_table(tables: &MemoryTables) -> Vec<ConnectionKey> {
    tables
        .connections_of_pods
        .borrow()
        .keys()
        .copied()
        .collect()
}

#[test]
fn a_place_has_one_connection_at_a_time() {
    let tables = tables();
    let (first, second) = two_of_one_place();
    assert!(put(&tables, &first, &row(NOW), true));
    assert!(in_table(&tables).is_empty());
    assert!(find(&tables, &second).is_none());
    assert!(put(&tables, &second, &row(NOW), true));
    assert_eq!(in_table(&tables), [second]);
    assert_eq!(*find(&tables, &first).unwrap(), row(NOW));
    end(&tables, &first);
    assert!(find(&tables, &first).is_none());
    assert!(!leave(&tables, &second), "its row is in the table");
    end(&tables, &second);
    assert!(tables.all_connections().is_empty());
    // And again.
    assert!(put(&tables, &second, &row(NOW), true));
    assert!(in_table(&tables).is_empty());
    let (found, of) = tables.all_connections()[0];
    assert_eq!((found, of), (second, row(NOW)));
}

#[test]
fn a_connection_that_is_over_loses_its_place() {
    let tables = tables();
    let (first, second) = two_of_one_place();
    assert!(take(&tables, &first, &row(NOW)));
    // Nobody answered, for as long as that is waited for.
    assert!(!take(&tables, &second, &row(NOW + 60)));
    assert!(take(&tables, &second, &row(NOW + 61)));
    assert!(find(&tables, &first).is_none());
    assert!(!leave(&tables, &first));
    assert!(find(&tables, &second).is_some());
}

#[test]
fn who_has_a_row_keeps_to_it() {
    let tables = tables();
    let of = key(1);
    assert!(put(&tables, &of, &row(NOW), false));
    assert_eq!(in_table(&tables), [of], "it is not new");
    end(&tables, &of);
    assert!(put(&tables, &of, &row(NOW), true));
    // Another one of the same ends: neither has two.
    let inward = Connection::new(true, NOW + 1);
    assert!(put(&tables, &of, &inward, false));
    assert!(in_table(&tables).is_empty());
    assert_eq!(*find(&tables, &of).unwrap(), inward);
}

#[test]
fn datagrams_have_no_places() {
    let tables = tables();
    let of = ConnectionKey {
        protocol: IPPROTO_UDP.into(),
        ..key(1)
    };
    assert!(find(&tables, &of).is_none());
    assert!(put(&tables, &of, &row(NOW), false));
    assert_eq!(in_table(&tables), [of]);
    assert!(!leave(&tables, &of));
}

#[test]
fn neighbouring_ports_are_led_to_many_places() {
    // As the kernel gives them to a client: every second one.
    let ports = (32_768..61_000).step_by(2);
    let places: BTreeSet<u32> = ports.clone().map(|port| index(&key(port))).collect();
    assert!(places.iter().all(|place| *place < Place::COUNT));
    assert!(places.len() * 10 > ports.count() * 5, "{}", places.len());
}

#[test]
fn the_layout_names_all_of_a_row() {
    let named = |field: &Field| Place::FIELDS.iter().any(|of| of.name == field.name);
    assert!(Connection::FIELDS.iter().all(named));
    assert!(ConnectionKey::FIELDS.iter().all(named));
    let bytes: usize = Place::FIELDS.iter().map(|field| field.size).sum();
    assert_eq!(bytes, size_of::<Place>());
}
