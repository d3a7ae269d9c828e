//! From a packet to what is done about it. Pure but for the table it reads.

use crate::Zone;
use crate::name::Name;
use crate::query::{HEADER, Malformed, Query};
use crate::records::{self, Step};
use crate::reply::{CLASS_IN, Flags, QUESTION, Rcode, Reply, form_err, kind, udp_limit};
use crate::search;

const CLASS_ANY: u16 = 255;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What is known of who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub transport: Transport,
    /// Whether there are upstream servers to ask.
    pub recursion: bool,
    /// The pod's search list, if misses in it are to be resolved here; empty if
    /// not.
    pub search: &'a [Name],
}

impl Asker<'_> {
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            recursion: false,
            search: &[],
        }
    }
}

/// What to do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what is in the buffer.
    Reply,
    /// Nothing: it is no question.
    Drop,
    /// The name is not the cluster's. The buffer holds the SERVFAIL for when no
    /// upstream server answers.
    Forward,
    /// The name is an alias of this one, which is not the cluster's. The buffer
    /// holds the aliases.
    Alias(Box<Name>),
    /// The name does not exist, says the buffer, and the asker would go on with
    /// these. The first of them is not the cluster's.
    Search(Box<[Name]>),
}

/// Which part of the tree a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm {
    /// The cluster domain.
    Cluster,
    /// Addresses of pods and services.
    Reverse,
    /// Names of others.
    Upstream,
    /// Nothing that has an answer.
    None,
}

/// A verdict, and what is counted about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub realm: Realm,
    /// Type of the question; 0 if it could not be read.
    pub kind: u16,
    /// Response code of what is in the buffer.
    pub rcode: u8,
}

impl Outcome {
    pub(crate) fn new(verdict: Verdict, realm: Realm, kind: u16, rcode: Rcode) -> Self {
        Self {
            verdict,
            realm,
            kind,
            rcode: rcode as u8,
        }
    }
}

/// Decides about one packet and writes the reply into `out`, whatever was in it.
pub fn answer(zone: &Zone, packet: &[u8], asker: Asker<'_>, out: &mut Vec<u8>) -> Outcome {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Malformed::NoQuery) => {
            return Outcome::new(Verdict::Drop, Realm::None, 0, Rcode::FormErr);
        }
        Err(Malformed::FormErr) => {
            form_err(out, packet);
            return Outcome::new(Verdict::Reply, Realm::None, 0, Rcode::FormErr);
        }
    };
    let mut reply = start(zone, &query, asker.transport, out);
    let mut flags = Flags {
        authoritative: false,
        recursion_available: asker.recursion,
    };
    if let Some(rcode) = refusal(&query) {
        reply.finish(rcode, flags);
        return Outcome::new(Verdict::Reply, Realm::None, query.kind, rcode);
    }
    // `parse` has walked the same name.
    let name = query.name();
    let table = zone.table();
    let (step, realm) = records::resolve(zone, &table, &query, name.clone(), &mut reply);
    let (verdict, rcode) = match step {
        Step::Done(rcode) => (Verdict::Reply, rcode),
        Step::Outside(None) => (Verdict::Forward, Rcode::ServFail),
        Step::Outside(Some(target)) => (Verdict::Alias(target), Rcode::NoError),
    };
    flags.authoritative = realm != Realm::Upstream && rcode != Rcode::ServFail;
    if verdict == Verdict::Reply && rcode == Rcode::NxDomain && !asker.search.is_empty() {
        let candidates = search::rest(zone, &table, &name, asker.search);
        let mut unknown = candidates.into_iter();
        while let Some(candidate) = unknown.next() {
            let step = alias(zone, &table, &query, &candidate, &mut reply);
            match step {
                Some(Step::Done(Rcode::NoError)) => {
                    reply.finish(Rcode::NoError, flags);
                    return Outcome::new(Verdict::Reply, realm, query.kind, Rcode::NoError);
                }
                Some(Step::Done(Rcode::NxDomain)) => {}
                // Whoever asks goes on alone where we cannot.
                None | Some(Step::Done(_)) => break,
                Some(Step::Outside(_)) if asker.recursion => {
                    let rest = std::iter::once(candidate).chain(unknown).collect();
                    nothing(zone, &table, &query, name, reply, flags);
                    return Outcome::new(Verdict::Search(rest), realm, query.kind, rcode);
                }
                Some(Step::Outside(_)) => break,
            }
        }
        nothing(zone, &table, &query, name, reply, flags);
        return Outcome::new(Verdict::Reply, realm, query.kind, rcode);
    }
    reply.finish(rcode, flags);
    Outcome::new(verdict, realm, query.kind, rcode)
}

/// What [`answer_as`] found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The buffer holds the reply: the name exists.
    Exists,
    /// The name does not exist.
    Nothing,
    /// Ask upstream for this name; the buffer holds the aliases to it.
    Outside(Box<Name>),
    /// There is no telling.
    Unknown,
}

/// Answers the question of a packet as if its name were an alias of `candidate`.
pub(crate) fn answer_as(
    zone: &Zone,
    query: &Query<'_>,
    candidate: &Name,
    transport: Transport,
    out: &mut Vec<u8>,
) -> Tried {
    let mut reply = start(zone, query, transport, out);
    let table = zone.table();
    let step = alias(zone, &table, query, candidate, &mut reply);
    let (tried, rcode) = match step {
        Some(Step::Done(Rcode::NoError)) => (Tried::Exists, Rcode::NoError),
        Some(Step::Done(Rcode::NxDomain)) => (Tried::Nothing, Rcode::NxDomain),
        Some(Step::Outside(None)) => (Tried::Outside(Box::new(candidate.clone())), Rcode::NoError),
        Some(Step::Outside(Some(target))) => (Tried::Outside(target), Rcode::NoError),
        None | Some(Step::Done(_)) => (Tried::Unknown, Rcode::ServFail),
    };
    let flags = Flags {
        authoritative: false,
        recursion_available: true,
    };
    reply.finish(rcode, flags);
    tried
}

fn alias(
    zone: &Zone,
    table: &crate::table::Table,
    query: &Query<'_>,
    candidate: &Name,
    reply: &mut Reply<'_>,
) -> Option<Step> {
    reply.clear(query);
    let at = reply.alias(QUESTION, candidate)?;
    Some(records::resolve_at(zone, table, query, candidate.clone(), at, reply).0)
}

/// The answer that the name itself has, after others were tried.
fn nothing(
    zone: &Zone,
    table: &crate::table::Table,
    query: &Query<'_>,
    name: Name,
    mut reply: Reply<'_>,
    flags: Flags,
) {
    reply.clear(query);
    // The same as before: the table has not changed in between.
    let _ = records::resolve(zone, table, query, name, &mut reply);
    reply.finish(Rcode::NxDomain, flags);
}

fn start<'a>(
    zone: &Zone,
    query: &Query<'_>,
    transport: Transport,
    out: &'a mut Vec<u8>,
) -> Reply<'a> {
    let limit = limit(query, transport);
    Reply::new(out, query, limit, zone.config.ttl)
}

/// Longest reply that the asker takes.
pub(crate) fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => udp_limit(query),
        Transport::Tcp => usize::from(u16::MAX),
    }
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
    (kind::META..kind::ANY)
        .contains(&query.kind)
        .then_some(Rcode::Refused)
}

const _: () = assert!(HEADER == 12, "pointers to the question count on it");
