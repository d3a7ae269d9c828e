//! Whatever happened to a cluster before, its names are those of a cluster that
//! was always as it is now; and a file of them gives them back.

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ripstop_dns::{Asker, Transport, Zone, answer};
use ripstop_model::{ObjectKey, Protocol};
use ripstop_plan::{Headless, Host, NamedPort, ServiceNames};

const NAMES: [&str; 3] = ["a", "b", "c"];

type World = BTreeMap<ObjectKey, ServiceNames>;

fn port(name: &str, port: u16) -> NamedPort {
    NamedPort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port,
    }
}

fn service_names() -> impl Strategy<Value = Option<ServiceNames>> {
    let address = (any::<bool>(), 0..4_u8).prop_map(|(v4, n)| match v4 {
        true => IpAddr::from([10, 244, 0, n]),
        false => common::ip(&format!("fd00:244::{n}")),
    });
    let addresses = vec(address.clone(), 1..3);
    let hosts = vec((select(&NAMES[..]), address), 1..5);
    prop_oneof![
        Just(None),
        addresses.prop_map(|mut addresses| {
            addresses.sort_unstable();
            addresses.dedup();
            Some(ServiceNames::Cluster {
                addresses,
                ports: vec![port("http", 80)],
            })
        }),
        hosts.prop_map(|hosts| {
            let mut hosts: Vec<Host> = hosts
                .into_iter()
                .map(|(name, address)| Host {
                    name: name.into(),
                    address,
                    ports: 0,
                })
                .collect();
            hosts.sort_unstable();
            hosts.dedup();
            Some(ServiceNames::Headless(Headless {
                hosts,
                port_sets: vec![vec![port("sql", 5432)]],
            }))
        }),
        select(&NAMES[..]).prop_map(|name| {
            Some(ServiceNames::Alias(
                format!("{name}.x.svc.cluster.local").into(),
            ))
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(ObjectKey, Option<ServiceNames>)>> {
    let key = (select(vec!["x", "y"]), select(&NAMES[..]))
        .prop_map(|(namespace, name)| ObjectKey::new(namespace, name));
    vec((key, service_names()), 0..30)
}

/// Every name that can be there, and some that cannot.
fn questions() -> Vec<(String, RecordType)> {
    let mut names = vec!["cluster.local.".to_owned(), "svc.cluster.local.".to_owned()];
    for namespace in ["x", "y"] {
        names.push(format!("{namespace}.svc.cluster.local."));
        for service in NAMES {
            let service = format!("{service}.{namespace}.svc.cluster.local.");
            for below in [
                "a.",
                "b.",
                "c.",
                "_http._tcp.",
                "_sql._tcp.",
                "_tcp.",
                "_udp.",
            ] {
                names.push(format!("{below}{service}"));
            }
            names.push(service);
        }
    }
    for n in 0..4 {
        names.push(format!("{n}.0.244.10.in-addr.arpa."));
        names.push(format!(
            "{n}.0.{}4.4.2.0.0.0.d.f.ip6.arpa.",
            "0.".repeat(20)
        ));
    }
    names.push("0.244.10.in-addr.arpa.".to_owned());
    let kinds = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::PTR,
    ];
    let all = names
        .into_iter()
        .flat_map(|name| kinds.map(|kind| (name.clone(), kind)));
    all.collect()
}

/// Response code and records, sorted: answers rotate.
fn all_answers(zone: &Zone) -> Vec<(u16, Vec<String>)> {
    questions()
        .iter()
        .map(|(name, kind)| {
            let mut question = Message::query();
            question.add_query(Query::query(Name::from_ascii(name).unwrap(), *kind));
            let mut out = Vec::new();
            let packet = question.to_vec().unwrap();
            answer(zone, &packet, Asker::new(Transport::Tcp), &mut out);
            let reply = Message::from_vec(&out).unwrap();
            let mut records: Vec<String> = reply
                .answers
                .iter()
                .chain(&reply.additionals)
                .map(ToString::to_string)
                .collect();
            records.sort();
            records.dedup();
            (reply.metadata.response_code.into(), records)
        })
        .collect()
}

fn fresh(world: World) -> Zone {
    let zone = Zone::new(common::config()).unwrap();
    zone.update(world.into_iter().map(|(key, names)| (key, Some(names))));
    zone.set_known();
    zone
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_history_is_forgotten(history in steps(), last in steps()) {
        let zone = Zone::new(common::config()).unwrap();
        zone.set_known();
        let mut world = World::new();
        for (key, names) in history {
            zone.update([(key.clone(), names.clone())]);
            match names {
                Some(names) => drop(world.insert(key, names)),
                None => drop(world.remove(&key)),
            }
        }
        let expected = all_answers(&fresh(world.clone()));
        prop_assert_eq!(&all_answers(&zone), &expected);

        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("names");
        zone.save(&path).unwrap();
        let restored = Zone::new(common::config()).unwrap();
        prop_assert!(restored.restore(&path).unwrap());
        restored.set_known();
        prop_assert_eq!(&all_answers(&restored), &expected);

        // What was restored is then listed again, and some of it has gone.
        let mut now = World::new();
        for (key, names) in last {
            now.extend(names.map(|names| (key, names)));
        }
        restored.retain(|key| now.contains_key(key));
        restored.update(now.clone().into_iter().map(|(key, names)| (key, Some(names))));
        prop_assert_eq!(&all_answers(&restored), &all_answers(&fresh(now)));
    }
}

#[test]
fn a_damaged_file_is_refused_whole() {
    let zone = cluster::zone();
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("names");
    zone.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 1, bytes.len() / 2, bytes.len() - 3] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let restored = Zone::new(common::config()).unwrap();
        assert!(restored.restore(&path).is_err(), "{length} bytes");
        assert!(restored.is_empty());
    }
    let missing = Zone::new(common::config()).unwrap();
    assert!(!missing.restore(&path.with_extension("nil")).unwrap());
}
