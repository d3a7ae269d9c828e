//! Answers as a foreign implementation of the wire format reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;
use ripstop_dns::{Transport, Verdict, Zone, answer};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn zone() -> Zone {
    let zone = Zone::new("cluster.local").unwrap();
    let many: Vec<IpAddr> = (0..200u8).map(|i| IpAddr::from([10, 244, 1, i])).collect();
    let names = |addresses| {
        Some(ServiceNames {
            addresses,
            hosts: BTreeMap::new(),
        })
    };
    let db = ServiceNames {
        addresses: ips(&["10.244.1.2", "10.244.2.2"]),
        hosts: BTreeMap::from([("db-0".to_owned(), ips(&["10.244.1.2"]))]),
    };
    zone.update([
        (
            ObjectKey::new("shop", "web"),
            names(ips(&["10.96.0.7", "fd00:96::7"])),
        ),
        (ObjectKey::new("shop", "v4"), names(ips(&["10.96.0.8"]))),
        (ObjectKey::new("shop", "db"), Some(db)),
        (ObjectKey::new("shop", "many"), names(many)),
    ]);
    zone.set_complete();
    zone
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message
}

fn decide(zone: &Zone, packet: &[u8], transport: Transport) -> (Verdict, Vec<u8>) {
    let mut out = vec![0xff; 7];
    let verdict = answer(zone, packet, transport, false, &mut out);
    (verdict, out)
}

fn ask(zone: &Zone, message: &Message) -> Message {
    let (verdict, reply) = decide(zone, &message.to_vec().unwrap(), Transport::Udp);
    assert_eq!(verdict, Verdict::Reply);
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    assert_eq!(reply.queries, message.queries);
    reply
}

fn rcode(reply: &Message) -> ResponseCode {
    reply.metadata.response_code
}

fn found(reply: &Message) -> Vec<IpAddr> {
    let mut ips: Vec<_> = reply
        .answers
        .iter()
        .filter_map(|r| r.data.ip_addr())
        .collect();
    assert_eq!(ips.len(), reply.answers.len());
    ips.sort_unstable();
    ips
}

#[test]
fn addresses_by_family() {
    use RecordType::{A, AAAA, ANY};
    let zone = zone();
    let cases: [(&str, RecordType, &[&str]); 5] = [
        ("web.shop.svc.cluster.local.", A, &["10.96.0.7"]),
        ("web.shop.svc.cluster.local.", AAAA, &["fd00:96::7"]),
        (
            "web.shop.svc.cluster.local.",
            ANY,
            &["10.96.0.7", "fd00:96::7"],
        ),
        (
            "db.shop.svc.cluster.local.",
            A,
            &["10.244.1.2", "10.244.2.2"],
        ),
        ("db-0.db.shop.svc.cluster.local.", A, &["10.244.1.2"]),
    ];
    for (name, kind, expected) in cases {
        let reply = ask(&zone, &question(name, kind));
        assert_eq!(
            (rcode(&reply), found(&reply)),
            (ResponseCode::NoError, ips(expected)),
            "{name}"
        );
        assert!(reply.metadata.authoritative);
    }
}

#[test]
fn names_have_no_case_and_keep_their_spelling() {
    let question = question("web.shop.svc.cluster.local.", RecordType::A);
    let mut packet = question.to_vec().unwrap();
    for byte in packet[12..].iter_mut().step_by(2) {
        byte.make_ascii_uppercase();
    }
    let (_, reply) = decide(&zone(), &packet, Transport::Udp);
    assert_eq!(reply[12..packet.len()], packet[12..]);
    assert_eq!(
        found(&Message::from_vec(&reply).unwrap()),
        ips(&["10.96.0.7"])
    );
}

#[test]
fn no_name_and_no_data_carry_the_zone() {
    use RecordType::{A, AAAA, SOA, TXT};
    let zone = zone();
    let cases = [
        ("v4.shop.svc.cluster.local.", AAAA, ResponseCode::NoError),
        ("web.shop.svc.cluster.local.", TXT, ResponseCode::NoError),
        ("shop.svc.cluster.local.", A, ResponseCode::NoError),
        ("cluster.local.", A, ResponseCode::NoError),
        ("nil.shop.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("web.nil.svc.cluster.local.", AAAA, ResponseCode::NXDomain),
        (
            "web.shop.svc.cluster.local.shop.svc.cluster.local.",
            A,
            ResponseCode::NXDomain,
        ),
        ("web\\.shop.svc.cluster.local.", A, ResponseCode::NXDomain),
        ("nil.cluster.local.", SOA, ResponseCode::NXDomain),
    ];
    for (name, kind, expected) in cases {
        let reply = ask(&zone, &question(name, kind));
        assert_eq!(rcode(&reply), expected, "{name}");
        assert!(reply.answers.is_empty());
        let [authority] = reply.authorities.as_slice() else {
            panic!("{name}: one SOA")
        };
        let RData::SOA(soa) = &authority.data else {
            panic!("{name}: an SOA")
        };
        assert_eq!(authority.name, Name::from_str("cluster.local.").unwrap());
        assert_eq!(soa.mname.to_ascii(), "ns.dns.cluster.local.");
        assert_eq!((soa.minimum, authority.ttl), (5, 5));
    }
    let reply = ask(&zone, &question("cluster.local.", SOA));
    assert!(matches!(reply.answers[0].data, RData::SOA(_)));
}

#[test]
fn other_names_are_others_to_answer() {
    let zone = zone();
    for name in [
        "example.org.",
        "local.",
        ".",
        "xcluster.local.",
        "cluster.local.org.",
    ] {
        let packet = question(name, RecordType::A).to_vec().unwrap();
        let (verdict, failure) = decide(&zone, &packet, Transport::Udp);
        assert_eq!(verdict, Verdict::Forward, "{name}");
        let failure = Message::from_vec(&failure).unwrap();
        assert_eq!(rcode(&failure), ResponseCode::ServFail);
        assert!(!failure.metadata.authoritative);
    }
}

#[test]
fn before_the_names_are_complete_nothing_is_denied() {
    let zone = Zone::new("cluster.local").unwrap();
    let reply = ask(
        &zone,
        &question("web.shop.svc.cluster.local.", RecordType::A),
    );
    assert_eq!(rcode(&reply), ResponseCode::ServFail);
    assert!(reply.authorities.is_empty());
}

#[test]
fn what_does_not_fit_is_truncated() {
    let zone = zone();
    let name = "many.shop.svc.cluster.local.";
    for (payload, limit) in [
        (None, 512),
        (Some(900), 900),
        (Some(100), 512),
        (Some(9000), 1232),
    ] {
        let mut message = question(name, RecordType::A);
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let packet = message.to_vec().unwrap();
        let (_, reply) = decide(&zone, &packet, Transport::Udp);
        assert!(
            reply.len() <= limit && reply.len() + 16 > limit,
            "{} of {limit}",
            reply.len()
        );
        let reply = Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.truncation);
        assert_eq!(reply.edns.is_some(), payload.is_some());
        let (_, whole) = decide(&zone, &packet, Transport::Tcp);
        let whole = Message::from_vec(&whole).unwrap();
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
}

#[test]
fn answers_take_turns() {
    let zone = zone();
    let question = question("db.shop.svc.cluster.local.", RecordType::A);
    let firsts = |_| ask(&zone, &question).answers[0].data.ip_addr().unwrap();
    let firsts: std::collections::BTreeSet<IpAddr> = (0..64).map(firsts).collect();
    assert_eq!(firsts.len(), 2);
}

#[test]
fn queries_that_are_refused() {
    let zone = zone();
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
    assert_eq!(
        rcode(&Message::from_vec(&reply).unwrap()),
        ResponseCode::FormErr
    );
    let mut packet = base.to_vec().unwrap();
    packet[2] |= 0x80;
    assert_eq!(decide(&zone, &packet, Transport::Udp).0, Verdict::Drop);
}

#[test]
fn domains_that_are_none() {
    for domain in [
        "",
        ".",
        "a..b",
        "a_b.local",
        &"a".repeat(64),
        &"ab.".repeat(40),
    ] {
        assert!(Zone::new(domain).is_err(), "{domain:?}");
    }
    assert!(Zone::new("Cluster.Local.").is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No bytes make it panic, and what it says is well formed, no longer than
    /// allowed, and never an answer to an answer.
    #[test]
    fn hostile_bytes(packet in proptest::collection::vec(any::<u8>(), 0..600), tcp: bool) {
        check(&packet, tcp)?;
    }

    /// The same for packets that are nearly right.
    #[test]
    fn damaged_questions(
        name in "[a-z.]{0,20}(\\.shop)?(\\.svc)?(\\.cluster\\.local)?",
        kind in any::<u16>(),
        payload in proptest::option::of(any::<u16>()),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        tcp: bool,
    ) {
        let Ok(name) = Name::from_str(&name) else { return Ok(()) };
        let mut message = Message::query();
        message.add_query(Query::query(name, RecordType::from(kind)));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let mut packet = message.to_vec().unwrap();
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        check(&packet, tcp)?;
    }
}

fn check(packet: &[u8], tcp: bool) -> Result<(), TestCaseError> {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let (verdict, reply) = decide(&zone(), packet, transport);
    if verdict == Verdict::Drop {
        return Ok(());
    }
    prop_assert!(packet[2] & 0x80 == 0, "an answer was answered");
    prop_assert!(tcp || reply.len() <= 1232);
    prop_assert_eq!(&reply[..2], &packet[..2]);
    prop_assert!(reply[2] & 0x80 != 0);
    let records = [4, 6, 8, 10].map(|at| u16::from_be_bytes([reply[at], reply[at + 1]]));
    prop_assert!(records[0] <= 1 && records[2] <= 1 && records[3] <= 1);
    let read = Message::from_vec(&reply);
    prop_assert!(read.is_ok(), "{:?}: {:02x?}", read, reply);
    Ok(())
}
