//! Packets of any sort: no panic, no growth, no answer to what is no question.
//!
//! Runs for a moment with the other tests; `cargo xtask fuzz` runs it for longer
//! (RIPSTOP_FUZZ_SECONDS).

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use ripstop_dns::{Asker, Transport, Verdict, Zone, answer};

/// A small generator of our own (xorshift64*), so that a failure's seed is all
/// that is needed to see it again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const NAMES: [&str; 13] = [
    ".",
    "cluster.local.",
    "web.shop.svc.cluster.local.",
    "_http._tcp.web.shop.svc.cluster.local.",
    "db-0.db.shop.svc.cluster.local.",
    "circle-a.shop.svc.cluster.local.",
    "outside.shop.svc.cluster.local.",
    "example.org.shop.svc.cluster.local.",
    "example.org.shop.search.cluster.local.",
    "10-244-1-2.shop.pod.cluster.local.",
    "1.7.96.10.in-addr.arpa.",
    "f.f.0.0.ip6.arpa.",
    "example.org.",
];
const KINDS: [RecordType; 9] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::SOA,
    RecordType::NS,
    RecordType::ANY,
    RecordType::AXFR,
];

/// A question as a client would ask it, before anything is done to it.
fn question(random: &mut Random) -> Vec<u8> {
    let mut message = Message::query();
    for _ in 0..random.of(&[1, 1, 1, 1, 0, 2]) {
        let name = Name::from_ascii(random.of(&NAMES)).unwrap();
        message.add_query(Query::query(name, random.of(&KINDS)));
    }
    if random.below(2) == 0 {
        let mut edns = Edns::new();
        edns.set_max_payload(random.of(&[0, 512, 1232, 4096, 65535]));
        message.edns = Some(edns);
    }
    message.to_vec().unwrap()
}

fn mutate(random: &mut Random, packet: &mut Vec<u8>) {
    for _ in 0..random.below(5) {
        let at = random.below(packet.len() + 1);
        match random.below(7) {
            0 => packet.truncate(at),
            1 => packet.insert(at, random.next() as u8),
            // Length bytes, pointers and counts are what a decoder trips over.
            2 => packet.insert(at, random.of(&[0, 1, 63, 64, 0x80, 0xc0, 0xff])),
            3 if at < packet.len() => packet[at] = random.next() as u8,
            4 if at < packet.len() => packet[at] ^= 1 << random.below(8),
            5 if at < packet.len() => {
                let copy = packet[at..].to_vec();
                packet.extend_from_slice(&copy);
            }
            6 if packet.len() > 12 => {
                let count = 4 + random.below(8);
                packet[count] = random.of(&[0, 1, 2, 0xff]);
            }
            _ => {}
        }
    }
    packet.truncate(70_000);
}

fn check(zone: &Zone, packet: &[u8], transport: Transport, out: &mut Vec<u8>) {
    let search = [
        "shop.search.cluster.local",
        "svc.cluster.local",
        "cluster.local",
    ]
    .map(|name| ripstop_dns::Name::parse(name).unwrap());
    for search in [&[][..], &search[..]] {
        let asker = Asker {
            expand: true,
            search,
            recursion: packet.len().is_multiple_of(2),
            transport,
        };
        let outcome = answer(zone, packet, asker, out);
        if outcome.verdict == Verdict::Drop {
            assert!(
                packet.len() < 12 || packet[2] & 0x80 != 0,
                "a question is answered"
            );
            continue;
        }
        // Whatever the verdict, the buffer is a reply to this packet.
        assert!(
            packet.len() >= 12 && packet[2] & 0x80 == 0,
            "no question is answered"
        );
        assert_eq!(out[..2], packet[..2]);
        assert!(out[2] & 0x80 != 0);
        let limit = match transport {
            Transport::Udp => 1232,
            Transport::Tcp => 65535,
        };
        assert!(out.len() <= limit, "{} bytes", out.len());
        let reply = Message::from_vec(out).unwrap_or_else(|e| panic!("{e}: {out:02x?}"));
        // Who asked with a forged address gets others little to carry.
        let asked_more = reply.edns.is_some();
        assert!(transport == Transport::Tcp || asked_more || out.len() <= 512);
    }
    assert!(out.capacity() <= 1 << 17, "the buffer grows");
}

#[test]
fn packets_of_any_sort() {
    let seconds = std::env::var("RIPSTOP_FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok()).unwrap_or(3);
    let seed = match seconds {
        // The same packets every time, for a test.
        3 => 0x5eed,
        _ => std::process::id().into(),
    };
    let known = cluster::zone();
    let unknown = Zone::new(common::config()).unwrap();
    let mut random = Random(seed);
    let mut out = Vec::new();
    let start = Instant::now();
    let mut packets = 0_u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1000 {
            let mut packet = match random.below(8) {
                0 => (0..random.below(600))
                    .map(|_| random.next() as u8)
                    .collect(),
                _ => question(&mut random),
            };
            mutate(&mut random, &mut packet);
            let transport = random.of(&[Transport::Udp, Transport::Tcp]);
            let zone = if random.below(20) == 0 {
                &unknown
            } else {
                &known
            };
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                check(zone, &packet, transport, &mut out);
            }));
            assert!(
                checked.is_ok(),
                "seed {seed:#x}, packet {packets}: {packet:02x?}"
            );
            packets += 1;
        }
    }
    println!("{packets} packets in {:.0?}", start.elapsed());
}
