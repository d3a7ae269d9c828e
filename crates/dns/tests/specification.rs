//! The table of `specification.txt`, as a foreign implementation of the wire
//! format reads the answers.

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use ripstop_dns::{Asker, Transport, Verdict, answer};

/// One line of the table.
struct Line<'a> {
    text: &'a str,
    name: String,
    kind: RecordType,
    rcode: &'a str,
    answers: Vec<&'a str>,
}

fn table() -> Vec<Line<'static>> {
    include_str!("specification.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|text| {
            let mut words = text.splitn(4, ' ');
            let mut word = || words.next();
            let name = word().unwrap();
            Line {
                text,
                name: match name.ends_with('.') {
                    true => name.to_owned(),
                    false => format!("{name}.cluster.local."),
                },
                kind: RecordType::from_str(word().unwrap()).unwrap(),
                rcode: word().unwrap(),
                answers: word().map_or_else(Vec::new, |list| list.split(", ").collect()),
            }
        })
        .collect()
}

#[test]
fn every_line_of_the_table() {
    let zone = cluster::zone();
    let mut wrong = Vec::new();
    for line in table() {
        for edns in [false, true] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let mut question = Message::query();
                let name = Name::from_ascii(&line.name).unwrap();
                question.add_query(Query::query(name, line.kind));
                if edns {
                    question.edns = Some(Edns::new());
                }
                let mut out = Vec::new();
                let packet = question.to_vec().unwrap();
                let outcome = answer(&zone, &packet, Asker::new(transport), &mut out);
                assert_ne!(outcome.verdict, Verdict::Drop);
                let reply = Message::from_vec(&out).unwrap();
                let shown = show(&reply);
                if shown != (line.rcode.to_owned(), line.answers.join(", ")) {
                    wrong.push(format!("{}: {shown:?}", line.text));
                }
                check(&line, &reply, edns);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What holds for all answers.
fn check(line: &Line<'_>, reply: &Message, edns: bool) {
    assert_eq!(
        reply.queries[0].name().to_string(),
        line.name,
        "its spelling is kept"
    );
    assert_eq!(reply.edns.is_some(), edns);
    assert!(!reply.metadata.truncation, "{}", line.text);
    assert_eq!(
        reply.metadata.authoritative,
        line.rcode != "SERVFAIL",
        "{}",
        line.text
    );
    // "There is nothing" comes with how long that may be believed (RFC 2308).
    let wanted = reply
        .answers
        .iter()
        .filter(|r| r.record_type() == line.kind)
        .count();
    let nothing = line.rcode == "NXDOMAIN" || line.rcode == "NOERROR" && wanted == 0;
    let soa = reply
        .authorities
        .iter()
        .filter(|r| r.record_type() == RecordType::SOA);
    assert_eq!(soa.clone().count() > 0, nothing, "{}", line.text);
    for record in soa {
        let name = Name::from_ascii(&line.name).unwrap();
        assert!(
            record.name.zone_of(&name) || !line.answers.is_empty(),
            "{record} for {name}"
        );
    }
    for record in reply.answers.iter().chain(&reply.additionals) {
        assert_eq!(record.ttl, 5, "{record}");
    }
    // Targets come with their addresses.
    if line.kind == RecordType::SRV && !line.answers.is_empty() {
        assert!(!reply.additionals.is_empty(), "{}", line.text);
    }
}

/// Response code and data, sorted as the table is: aliases first, in their order.
fn show(reply: &Message) -> (String, String) {
    let rcode = match reply.metadata.response_code.low() {
        0 => "NOERROR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        _ => "another",
    };
    let (aliases, mut data): (Vec<_>, Vec<_>) = reply
        .answers
        .iter()
        .map(|r| match r.record_type() {
            RecordType::TXT => (r.record_type(), format!("{:?}", r.data.to_string())),
            kind => (kind, r.data.to_string()),
        })
        .partition(|(kind, _)| *kind == RecordType::CNAME);
    data.sort();
    let all = aliases.into_iter().chain(data).map(|(_, data)| data);
    // Those who cannot say have nothing to say.
    let shown = match rcode {
        "SERVFAIL" => String::new(),
        _ => all.collect::<Vec<_>>().join(", "),
    };
    (rcode.to_owned(), shown)
}
