//! Questions that somebody else has to answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use crate::Name;
use crate::answer::{Outcome, Transport, Tried, Verdict, answer_as, limit};
use crate::log::Source;
use crate::query::Query;
use crate::upstream::{Answer, Key, Origin, append};

/// A question under way.
pub(super) struct Job {
    pub(super) packet: Vec<u8>,
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) outcome: Outcome,
    /// What there is of the reply: the verdict says what that is.
    pub(super) reply: Vec<u8>,
}

impl Job {
    /// Finds the answer; it is in `reply` then.
    pub(super) async fn finish(&mut self, shared: &Arc<Shared>) -> Source {
        let Ok(query) = Query::parse(&self.packet) else {
            return Source::Dropped;
        };
        let limit = limit(&query, self.transport);
        let (rcode, source) = match &self.outcome.verdict {
            Verdict::Reply | Verdict::Drop => return Source::Table,
            Verdict::Forward => {
                let key = Key::new(&query.name(), &query);
                match shared.resolver.resolve(key).await {
                    Some((answer, origin)) => {
                        answer.write(&query, limit, Instant::now(), &mut self.reply);
                        (answer.rcode, source(origin))
                    }
                    None => (2, Source::Nobody),
                }
            }
            Verdict::Alias(target) => {
                let key = Key::new(target, &query);
                match shared.resolver.resolve(key).await {
                    Some((answer, origin)) => {
                        let rcode = join(&mut self.reply, &answer, target, &query, limit);
                        (rcode, source(origin))
                    }
                    None => {
                        failure(&self.packet, &mut self.reply);
                        (2, Source::Nobody)
                    }
                }
            }
            Verdict::Search { names, begins } => {
                let walk = Walk {
                    names,
                    begins: *begins,
                    transport: self.transport,
                    limit,
                };
                match walk.go(shared, &query, &mut self.reply).await {
                    Walked::To(rcode, source) => (rcode, source),
                    // Who asks does not ask for that name itself: it is told.
                    Walked::Unknown(0) if *begins => {
                        failure(&self.packet, &mut self.reply);
                        (2, Source::Nobody)
                    }
                    // The miss that is in the buffer.
                    Walked::Nowhere | Walked::Unknown(_) => (3, Source::Table),
                }
            }
        };
        self.outcome.rcode = rcode.min(255) as u8;
        source
    }
}

fn source(origin: Origin) -> Source {
    match origin {
        Origin::Cache => Source::Cache,
        Origin::Stale => Source::Stale,
        Origin::Server => Source::Server,
    }
}

/// Where a walk ended.
enum Walked {
    /// With this response code.
    To(u16, Source),
    Nowhere,
    /// There is no telling about the name with this index.
    Unknown(usize),
}

/// As in [`Verdict::Search`].
struct Walk<'a> {
    names: &'a [Name],
    begins: bool,
    transport: Transport,
    limit: usize,
}

impl Walk<'_> {
    /// The first name that exists becomes the reply. Otherwise the reply stays as
    /// it is.
    async fn go(&self, shared: &Arc<Shared>, query: &Query<'_>, reply: &mut Vec<u8>) -> Walked {
        let mut out = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let target = match answer_as(&shared.zone, query, name, self.transport, &mut out) {
                Tried::Exists => {
                    *reply = out;
                    return Walked::To(0, Source::Table);
                }
                Tried::Nothing => continue,
                Tried::Unknown => return Walked::Unknown(index),
                Tried::Outside(target) => target,
            };
            let Some((answer, origin)) = shared.resolver.resolve(Key::new(&target, query)).await
            else {
                return Walked::Unknown(index);
            };
            // The first one's answer is the asker's, also if it is a failure.
            if answer.exists() || (answer.is_failure() && self.begins && index == 0) {
                let rcode = join(&mut out, &answer, &target, query, self.limit);
                *reply = out;
                return Walked::To(rcode, source(origin));
            }
            if answer.is_failure() {
                return Walked::Unknown(index);
            }
        }
        Walked::Nowhere
    }
}

/// Adds what the alias in `reply` leads to; returns the response code.
fn join(
    reply: &mut Vec<u8>,
    answer: &Answer,
    target: &Name,
    query: &Query<'_>,
    limit: usize,
) -> u16 {
    match append(reply, answer, target.wire(), limit, Instant::now()) {
        Some(whole) => {
            *reply = whole;
            answer.rcode
        }
        None => {
            failure(query.packet(), reply);
            2
        }
    }
}

/// The reply when there is none.
pub(super) fn failure(packet: &[u8], reply: &mut Vec<u8>) {
    let Ok(query) = Query::parse(packet) else {
        return;
    };
    reply.clear();
    let bits = 0x8082 | query.flags & 0x7910;
    reply.extend_from_slice(&packet[..2]);
    reply.extend_from_slice(&bits.to_be_bytes());
    reply.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(query.question());
    if query.edns.is_some() {
        crate::reply::opt(reply, 2);
    }
}
