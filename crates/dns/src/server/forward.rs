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
            Verdict::Search(names) => {
                let transport = self.transport;
                match search(shared, names, &query, transport, limit, &mut self.reply).await {
                    Some(source) => (0, source),
                    // The miss that is in the buffer.
                    None => (3, Source::Table),
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

/// The first of `names` that exists becomes the reply. Otherwise the reply stays
/// as it is.
async fn search(
    shared: &Arc<Shared>,
    names: &[Name],
    query: &Query<'_>,
    transport: Transport,
    limit: usize,
    reply: &mut Vec<u8>,
) -> Option<Source> {
    let mut out = Vec::new();
    for name in names {
        let target = match answer_as(&shared.zone, query, name, transport, &mut out) {
            Tried::Exists => {
                *reply = out;
                return Some(Source::Table);
            }
            Tried::Nothing => continue,
            Tried::Unknown => return None,
            Tried::Outside(target) => target,
        };
        let key = Key::new(&target, query);
        let (answer, origin) = shared.resolver.resolve(key).await?;
        if answer.is_failure() {
            return None;
        }
        if answer.exists() {
            join(&mut out, &answer, &target, query, limit);
            *reply = out;
            return Some(source(origin));
        }
    }
    None
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
