//! From a packet to what is done about it. Pure but for the table it reads.

use std::sync::atomic::{AtomicUsize, Ordering};

use ripstop_plan::Lookup;

use crate::Zone;
use crate::query::{Malformed, Query};
use crate::reply::{Flags, Rcode, Reply, form_err, udp_limit};
use crate::zone::Place;

const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;
/// From here to ANY: transfers and other requests that are no types of data.
const TYPE_META: u16 = 249;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what is in the buffer.
    Reply,
    /// The name is not the cluster's. The buffer holds the SERVFAIL for when no
    /// upstream server answers.
    Forward,
    /// Nothing: it is no question.
    Drop,
}

/// Decides about one packet and writes the reply into `out`, whatever was in it.
pub fn answer(
    zone: &Zone,
    packet: &[u8],
    transport: Transport,
    recursion_available: bool,
    out: &mut Vec<u8>,
) -> Verdict {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Malformed::NoQuery) => return Verdict::Drop,
        Err(Malformed::FormErr) => {
            form_err(out, packet);
            return Verdict::Reply;
        }
    };
    let limit = match transport {
        Transport::Udp => udp_limit(&query),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let place = zone.place(&query);
    let inside = matches!(place, Place::Inside { .. });
    let flags = Flags {
        authoritative: inside && zone.is_complete(),
        recursion_available,
    };
    let mut reply = Reply::new(out, packet, &query, limit, flags);
    let (verdict, rcode) = match (refusal(&query), place) {
        (Some(rcode), _) => (Verdict::Reply, rcode),
        (None, Place::Outside) => (Verdict::Forward, Rcode::ServFail),
        (None, Place::Inside { name, domain }) => {
            let rcode = match zone.is_complete() {
                true => inside_answer(zone, &query, name.as_deref(), domain, &mut reply),
                false => Rcode::ServFail,
            };
            (Verdict::Reply, rcode)
        }
    };
    reply.finish(rcode);
    verdict
}

/// Why a well-formed query gets no answer whatever its name.
fn refusal(query: &Query<'_>) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Rcode::BadVers);
    }
    if query.opcode() != 0 {
        return Some(Rcode::NotImp);
    }
    if !matches!(query.class, CLASS_IN | CLASS_ANY) {
        return Some(Rcode::Refused);
    }
    (TYPE_META..TYPE_ANY)
        .contains(&query.kind)
        .then_some(Rcode::Refused)
}

fn inside_answer(
    zone: &Zone,
    query: &Query<'_>,
    name: Option<&str>,
    domain: usize,
    reply: &mut Reply<'_>,
) -> Rcode {
    let names = zone.names();
    let found = name.map_or(Lookup::NoSuchName, |name| names.lookup(name));
    let Lookup::Addresses(addresses) = found else {
        reply.soa(domain, zone.serial(), false);
        return Rcode::NxDomain;
    };
    if query.kind == TYPE_SOA && name == Some("") {
        reply.soa(domain, zone.serial(), true);
        return Rcode::NoError;
    }
    let wanted = |address: &&std::net::IpAddr| match query.kind {
        TYPE_A => address.is_ipv4(),
        TYPE_AAAA => address.is_ipv6(),
        TYPE_ANY => true,
        _ => false,
    };
    let count = addresses.iter().filter(wanted).count();
    if count == 0 {
        reply.soa(domain, zone.serial(), false);
        return Rcode::NoError;
    }
    // Clients take the first address: each answer begins with another.
    let addresses = addresses.iter().filter(wanted);
    reply.addresses(addresses.clone().cycle().skip(turn() % count).take(count));
    Rcode::NoError
}

fn turn() -> usize {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    TURN.fetch_add(1, Ordering::Relaxed)
}
