//! What holds beside the table: which questions are refused, what is cut short,
//! what is said before the names are known, and names of pods by mode.

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use ripstop_dns::{Asker, PodNames, Transport, Verdict, Zone, ZoneConfig, answer};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn decide(zone: &Zone, packet: &[u8], transport: Transport) -> (Verdict, Vec<u8>) {
    let mut out = vec![0xff; 7];
    let outcome = answer(zone, packet, Asker::new(transport), &mut out);
    (outcome.verdict, out)
}

fn ask(zone: &Zone, message: &Message) -> Message {
    let (verdict, reply) = decide(zone, &message.to_vec().unwrap(), Transport::Udp);
    assert_eq!(verdict, Verdict::Reply);
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

fn rcode(reply: &Message) -> ResponseCode {
    reply.metadata.response_code
}

#[test]
fn names_keep_their_spelling() {
    let message = question("web.shop.svc.cluster.local.", RecordType::A);
    let mut packet = message.to_vec().unwrap();
    for byte in packet[12..].iter_mut().step_by(2) {
        byte.make_ascii_uppercase();
    }
    let (_, reply) = decide(&cluster::zone(), &packet, Transport::Udp);
    assert_eq!(reply[12..packet.len()], packet[12..]);
    assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
}

#[test]
fn before_the_names_are_known_nothing_is_denied() {
    let zone = Zone::new(common::config()).unwrap();
    for name in [
        "web.shop.svc.cluster.local.",
        "cluster.local.",
        "1.7.96.10.in-addr.arpa.",
    ] {
        let reply = ask(&zone, &question(name, RecordType::A));
        assert_eq!(rcode(&reply), ResponseCode::ServFail, "{name}");
        assert!(reply.authorities.is_empty() && !reply.metadata.authoritative);
    }
    let packet = question("example.org.", RecordType::A).to_vec().unwrap();
    assert_eq!(decide(&zone, &packet, Transport::Udp).0, Verdict::Forward);
}

#[test]
fn what_does_not_fit_is_truncated() {
    let zone = cluster::zone();
    let addresses = (0..200u8).map(|i| IpAddr::from([10, 244, 1, i])).collect();
    let ports = Vec::new();
    let many = ServiceNames::Cluster { addresses, ports };
    zone.update([(ObjectKey::new("shop", "many"), Some(many))]);
    for (payload, limit) in [
        (None, 512),
        (Some(900), 900),
        (Some(100), 512),
        (Some(9000), 1232),
    ] {
        let mut message = question("many.shop.svc.cluster.local.", RecordType::A);
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let packet = message.to_vec().unwrap();
        let (_, reply) = decide(&zone, &packet, Transport::Udp);
        assert!(reply.len() <= limit && reply.len() + 16 > limit, "{limit}");
        let reply = Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.truncation);
        let (_, whole) = decide(&zone, &packet, Transport::Tcp);
        let whole = Message::from_vec(&whole).unwrap();
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
}

#[test]
fn answers_take_turns() {
    let zone = cluster::zone();
    let question = question("db.shop.svc.cluster.local.", RecordType::A);
    let first = |_| ask(&zone, &question).answers[0].data.ip_addr().unwrap();
    let firsts: BTreeSet<IpAddr> = (0..64).map(first).collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn questions_that_are_refused() {
    let zone = cluster::zone();
    let base = question("web.shop.svc.cluster.local.", RecordType::A);
    let mut update = base.clone();
    update.metadata = Metadata::new(7, base.metadata.message_type, OpCode::Update);
    assert_eq!(rcode(&ask(&zone, &update)), ResponseCode::NotImp);
    let mut chaos = base.clone();
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(rcode(&ask(&zone, &chaos)), ResponseCode::Refused);
    let transfer = question("cluster.local.", RecordType::AXFR);
    assert_eq!(rcode(&ask(&zone, &transfer)), ResponseCode::Refused);
    let mut future = base.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    // BADVERS and BADSIG have one number.
    assert_eq!(u16::from(rcode(&ask(&zone, &future))), 16);
    let mut two = base.clone();
    two.add_query(base.queries[0].clone());
    let (verdict, reply) = decide(&zone, &two.to_vec().unwrap(), Transport::Udp);
    assert_eq!(verdict, Verdict::Reply);
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(rcode(&reply), ResponseCode::FormErr);
    let mut packet = base.to_vec().unwrap();
    packet[2] |= 0x80;
    assert_eq!(decide(&zone, &packet, Transport::Udp).0, Verdict::Drop);
}

#[test]
fn names_of_pods_by_mode() {
    let ask_of = |pods, known: bool, name: &str| {
        let zone = Zone::new(ZoneConfig {
            pods,
            ..common::config()
        });
        let zone = zone.unwrap();
        zone.set_known();
        if known {
            zone.set_pod("shop", common::ip("10.244.1.2"), true);
            zone.set_pods_known();
        }
        let name = format!("{name}.pod.cluster.local.");
        let reply = ask(&zone, &question(&name, RecordType::A));
        (u16::from(rcode(&reply)), reply.answers.len())
    };
    let (there, other) = ("10-244-1-2.shop", "10-244-1-3.shop");
    for (mode, known, name, expected) in [
        (PodNames::Off, true, there, (3, 0)),
        (PodNames::Always, false, there, (0, 1)),
        (PodNames::Always, false, other, (0, 1)),
        (PodNames::Verified, true, there, (0, 1)),
        (PodNames::Verified, true, other, (3, 0)),
        (PodNames::Verified, true, "10-244-1-2.other", (3, 0)),
        (PodNames::Verified, true, "shop", (0, 0)),
        (PodNames::Verified, true, "other", (3, 0)),
        // Nobody has said yet which pods there are.
        (PodNames::Verified, false, there, (2, 0)),
    ] {
        assert_eq!(
            ask_of(mode, known, name),
            expected,
            "{mode:?} {known} {name}"
        );
    }
}

#[test]
fn domains_that_are_none() {
    let zone = |domain: &str| {
        Zone::new(ZoneConfig {
            domain: domain.to_owned(),
            ..ZoneConfig::default()
        })
    };
    let (long, longer) = ("a".repeat(64), "ab.".repeat(40));
    for domain in ["", ".", "a..b", "a_b.local", &long, &longer] {
        let error = zone(domain).unwrap_err().to_string();
        assert!(error.starts_with("cluster domain"), "{error}");
    }
    assert!(zone("Cluster.Local.").is_ok());
}

/// As ServiceCIDR objects are made and removed.
#[test]
fn ranges_come_and_go() {
    let zone = cluster::zone();
    for (range, pointer) in [
        ("10.112.0.0/16", "7.7.112.10.in-addr.arpa."),
        (
            "fd00:112::/112",
            &format!("7.{}2.1.1.0.0.0.d.f.ip6.arpa.", "0.".repeat(23)),
        ),
    ] {
        let packet = question(pointer, RecordType::PTR).to_vec().unwrap();
        assert_eq!(decide(&zone, &packet, Transport::Udp).0, Verdict::Forward);
        zone.set_range(range.parse().unwrap(), true);
        let reply = ask(&zone, &question(pointer, RecordType::PTR));
        assert_eq!(rcode(&reply), ResponseCode::NXDomain);
        assert!(reply.metadata.authoritative);
        assert_eq!(reply.authorities.len(), 1);
        let key = ObjectKey::new("shop", "late");
        let names = |there: bool| {
            there.then(|| ServiceNames::Cluster {
                addresses: vec![common::ip("10.112.7.7"), common::ip("fd00:112::7")],
                ports: Vec::new(),
            })
        };
        zone.update([(key.clone(), names(true))]);
        let reply = ask(&zone, &question(pointer, RecordType::PTR));
        assert_eq!(reply.answers.len(), 1, "{reply:?}");
        zone.update([(key, names(false))]);
        zone.set_range(range.parse().unwrap(), false);
        assert_eq!(decide(&zone, &packet, Transport::Udp).0, Verdict::Forward);
    }
}
