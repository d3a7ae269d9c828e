//! From a packet to what is done about it. Pure but for the table it reads.

use crate::Zone;
use crate::name::Name;
use crate::query::{HEADER, Malformed, Query};
use crate::records::{self, Step};
use crate::reply::{CLASS_IN, Flags, QUESTION, Rcode, Reply, form_err, kind, udp_limit};
use crate::search::{self, Walk};
use crate::table::Table;

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
    /// Whether names below `search.<domain>` are walks through search lists.
    pub expand: bool,
    /// The pod's search list, as far as it is known.
    pub search: &'a [Name],
}

impl Asker<'_> {
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            recursion: false,
            expand: false,
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
    /// The name is an alias of the first of these that exists. The first of them
    /// is not the cluster's. The buffer says that none exists.
    Search {
        names: Box<[Name]>,
        /// Whether the walk begins here: the asker does not ask for the first of
        /// the names itself.
        begins: bool,
    },
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
    if verdict == Verdict::Reply && rcode == Rcode::NxDomain && asker.expand {
        match search::walk(zone, &name, asker.search) {
            None => {}
            Some(Walk::Top) => {
                // The SOA record is in place already.
                reply.finish(Rcode::NoError, flags);
                return Outcome::new(Verdict::Reply, realm, query.kind, Rcode::NoError);
            }
            Some(Walk::Through(names)) => {
                let first = first(zone, &table, &query, names, asker.recursion, &mut reply);
                let (verdict, rcode) = match first {
                    First::Here(rcode) => (Verdict::Reply, rcode),
                    First::Nowhere => (Verdict::Reply, Rcode::NxDomain),
                    First::Among { names, begins } => {
                        (Verdict::Search { names, begins }, Rcode::NxDomain)
                    }
                };
                if rcode == Rcode::NxDomain {
                    reply.clear(&query);
                    // The same as before: the table has not changed in between.
                    let _ = records::resolve(zone, &table, &query, name, &mut reply);
                }
                flags.authoritative = rcode != Rcode::ServFail;
                reply.finish(rcode, flags);
                return Outcome::new(verdict, realm, query.kind, rcode);
            }
        }
    }
    reply.finish(rcode, flags);
    Outcome::new(verdict, realm, query.kind, rcode)
}

/// Which of a walk's names exists.
enum First {
    /// The one that the reply has.
    Here(Rcode),
    /// None, or there is no telling: who asks goes on alone.
    Nowhere,
    /// As in [`Verdict::Search`].
    Among { names: Box<[Name]>, begins: bool },
}

fn first(
    zone: &Zone,
    table: &Table,
    query: &Query<'_>,
    names: Vec<Name>,
    recursion: bool,
    reply: &mut Reply<'_>,
) -> First {
    let mut begins = true;
    let mut names = names.into_iter();
    while let Some(name) = names.next() {
        match alias(zone, table, query, &name, reply) {
            Some(Step::Done(rcode @ Rcode::NoError)) => return First::Here(rcode),
            Some(Step::Done(Rcode::NxDomain)) => {}
            Some(Step::Outside(_)) if recursion => {
                let names = std::iter::once(name).chain(names).collect();
                return First::Among { names, begins };
            }
            None => {
                reply.clear(query);
                reply.truncate();
                return First::Here(Rcode::NoError);
            }
            // The asker does not ask for this one itself: it is told.
            Some(Step::Done(_) | Step::Outside(_)) if begins => {
                reply.clear(query);
                return First::Here(Rcode::ServFail);
            }
            Some(Step::Done(_) | Step::Outside(_)) => break,
        }
        begins = false;
    }
    First::Nowhere
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
    table: &Table,
    query: &Query<'_>,
    candidate: &Name,
    reply: &mut Reply<'_>,
) -> Option<Step> {
    reply.clear(query);
    let at = reply.alias(QUESTION, candidate)?;
    Some(records::resolve_at(zone, table, query, candidate.clone(), at, reply).0)
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
