//! Whom to ask for which name, and what is known already.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hickory_net::proto::rr::{Name as ForeignName, RecordType};
use hickory_net::proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::time::timeout;
use tracing::debug;

use super::cache::Cache;
use super::config::{UpstreamConfig, UpstreamServer, UpstreamTransport};
use super::message::Answer;
use super::server::{Server, ServerState, is_failure, tls_config, unpoisoned};
use crate::Name;
use crate::query::Query;
use crate::reply::CLASS_IN;

/// Bytes of answers that are kept if nothing else is said.
const CACHE_BYTES: usize = 4 << 20;
/// A client that could have a stale answer waits for a fresh one for so long
/// (RFC 8767, 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    name: Box<[u8]>,
    kind: u16,
    dnssec: bool,
}

impl Key {
    pub(crate) fn new(name: &Name, query: &Query<'_>) -> Self {
        Self {
            name: name.wire().into(),
            kind: query.kind,
            dnssec: query.edns.is_some_and(|edns| edns.dnssec),
        }
    }

    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.name.len()
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was here.
    Cache,
    /// It was here, and past its time; nobody could be asked.
    Stale,
    Server,
}

type Flight = Shared<BoxFuture<'static, Option<Arc<Answer>>>>;

/// Servers, cache, and the questions that are under way.
#[derive(Debug)]
pub(crate) struct Resolver {
    servers: Vec<Arc<Server>>,
    /// Longest names first.
    stubs: Vec<(Name, Vec<Arc<Server>>)>,
    cache: Cache,
    flights: Mutex<HashMap<Key, Flight>>,
}

impl Resolver {
    pub(crate) fn new(config: &UpstreamConfig) -> Self {
        let mut tls = None;
        let mut server = |server: &UpstreamServer| {
            let tls = match server.transport {
                UpstreamTransport::Tls(_) => {
                    Some(tls.get_or_insert_with(|| tls_config(&config.roots)).clone())
                }
                _ => None,
            };
            Arc::new(Server::new(server.clone(), tls))
        };
        let mut stubs: Vec<_> = config
            .stubs
            .iter()
            .map(|stub| {
                let servers = stub.servers.iter().map(&mut server).collect();
                (stub.domain.clone(), servers)
            })
            .collect();
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.count()));
        let bytes = match config.cache_bytes {
            0 => CACHE_BYTES,
            bytes => bytes,
        };
        Self {
            servers: config.servers.iter().map(server).collect(),
            stubs,
            cache: Cache::new(bytes),
            flights: Mutex::default(),
        }
    }

    /// The replies that need nobody to be asked, as somebody would get them.
    pub(crate) fn replies(&self, now: Instant) -> impl Iterator<Item = Vec<u8>> {
        let kept = self.cache.fresh(now).into_iter();
        kept.filter_map(move |(key, answer)| {
            let head = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let (kind, class) = (key.kind.to_be_bytes(), CLASS_IN.to_be_bytes());
            let question = [&head[..], &key.name, &kind, &class].concat();
            let query = Query::parse(&question).ok()?;
            let mut reply = Vec::new();
            answer.write(&query, usize::from(u16::MAX), now, &mut reply);
            Some(reply)
        })
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_available(&self) -> bool {
        !self.servers.is_empty() || !self.stubs.is_empty()
    }

    pub(crate) fn servers(&self) -> Vec<ServerState> {
        let stubs = self.stubs.iter().flat_map(|(_, servers)| servers);
        let all = self.servers.iter().chain(stubs);
        all.map(|server| server.state()).collect()
    }

    /// Answers that are kept, questions that are under way.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.cache.len(), unpoisoned(self.flights.lock()).len())
    }

    /// An answer that needs nobody to be asked, and whether it should be asked
    /// for again with [`Resolver::refresh`].
    pub(crate) fn known(&self, key: &Key, now: Instant) -> Option<(Arc<Answer>, bool)> {
        let answer = self.cache.get(key, now)?;
        let due = answer.is_due(now);
        answer.is_fresh(now).then_some((answer, due))
    }

    /// Asks for what will soon be past its time; nobody waits for it.
    pub(crate) async fn refresh(self: Arc<Self>, key: Key) {
        let _ = self.flight(key).await;
    }

    /// The answer, from wherever it can be had. `None` if from nowhere.
    pub(crate) async fn resolve(self: &Arc<Self>, key: Key) -> Option<(Arc<Answer>, Origin)> {
        let now = Instant::now();
        let kept = self.cache.get(&key, now);
        match kept {
            Some(answer) if answer.is_fresh(now) => Some((answer, Origin::Cache)),
            Some(stale) if !stale.is_failure() => {
                // The question goes on also if nobody waits for it any more.
                let well = self.servers_of(&key).iter().any(|s| s.is_healthy());
                let patience = if well { STALE_AFTER } else { Duration::ZERO };
                let flight = self.flight(key);
                match timeout(patience, flight).await {
                    Ok(Some(answer)) if !answer.is_failure() => Some((answer, Origin::Server)),
                    _ => Some((stale, Origin::Stale)),
                }
            }
            _ => Some((self.flight(key).await?, Origin::Server)),
        }
    }

    /// Asks, or waits with others for what is asked already.
    fn flight(self: &Arc<Self>, key: Key) -> Flight {
        let mut flights = unpoisoned(self.flights.lock());
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (resolver, wanted) = (Arc::clone(self), key.clone());
        let flight = async move {
            // Bytes of others may be more than a library expects: then there is no
            // answer, and the next question is asked again.
            let asked = AssertUnwindSafe(resolver.ask(&wanted)).catch_unwind();
            let answer = asked.await.ok().flatten().map(Arc::new);
            if let Some(answer) = &answer {
                let (key, answer) = (wanted.clone(), Arc::clone(answer));
                resolver.cache.put(key, answer, Instant::now());
            }
            unpoisoned(resolver.flights.lock()).remove(&wanted);
            answer
        };
        let flight = flight.boxed().shared();
        flights.insert(key, flight.clone());
        // Who asked may leave.
        tokio::spawn(flight.clone());
        flight
    }

    /// One server after the other; those that did not answer lately come last.
    async fn ask(&self, key: &Key) -> Option<Answer> {
        let name = ForeignName::read(&mut BinDecoder::new(&key.name)).ok()?;
        let kind = RecordType::from(key.kind);
        let servers = self.servers_of(key);
        let (well, ill): (Vec<_>, Vec<_>) = servers.iter().partition(|s| s.is_healthy());
        let mut failure = None;
        for server in well.into_iter().chain(ill) {
            match server.ask(&name, kind, key.dnssec).await {
                Ok(message) if is_failure(&message) => failure = Some(message),
                Ok(message) => return Answer::new(message, key.dnssec, Instant::now()),
                Err(error) => debug!(%name, %kind, %error, "asked in vain"),
            }
        }
        Answer::new(failure?, key.dnssec, Instant::now())
    }

    fn servers_of(&self, key: &Key) -> &[Arc<Server>] {
        let stub = Name::read(key.name()).and_then(|name| {
            let mut stubs = self.stubs.iter();
            stubs.find(|(domain, _)| name.below(domain).is_some())
        });
        stub.map_or(&self.servers, |(_, servers)| servers)
    }
}
