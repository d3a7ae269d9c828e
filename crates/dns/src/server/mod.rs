//! Questions from sockets, answers to sockets.
//!
//! A thread for each UDP socket answers what is known here without waiting for
//! anything. What has to be asked for elsewhere, and everything over TCP, is on
//! one asynchronous runtime.

mod forward;
mod limits;
mod share;
mod tcp;
mod udp;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::answer::{Asker, Outcome, Realm, Transport, Verdict, answer};
use crate::log::{Source, Stats};
use crate::query::Query;
use crate::reply::Rcode;
use crate::sockets::Sockets;
use crate::upstream::{Key, Resolver, ServerState, UpstreamConfig};
use crate::{Found, Name, Ready, Witness, Zone};
use forward::Job;
use limits::Limits;
pub use share::Backlog;
use tokio::runtime::{Handle, Runtime};

/// What a server needs to know.
#[derive(Debug)]
pub struct ServerConfig {
    pub upstream: UpstreamConfig,
    /// Whether search lists that begin with `<namespace>.search.<domain>` are
    /// walked here, in one round trip ([`Server::set_search`]).
    pub expand_search: bool,
    /// How to see that more is asked than can be answered; without it, whoever
    /// asks most gets most.
    pub backlog: Option<Backlog>,
    /// Is told of addresses before those who asked for them are.
    pub witness: Option<Arc<dyn Witness>>,
}

/// Answers questions at some sockets.
#[derive(Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
    handle: Handle,
    /// For the thread that will run it.
    runtime: Mutex<Option<Runtime>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) zone: Arc<Zone>,
    resolver: Arc<Resolver>,
    stats: Stats,
    /// Questions to upstream servers.
    limits: Limits,
    connections: Limits,
    /// Search lists by pod address.
    searches: RwLock<HashMap<IpAddr, Arc<[Name]>>>,
    expand_search: bool,
    backlog: Option<Backlog>,
    witness: Option<Arc<dyn Witness>>,
    ending: AtomicBool,
}

impl Server {
    /// # Errors
    /// If there is no asynchronous runtime to be had.
    pub fn new(zone: Arc<Zone>, config: &ServerConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            shared: Arc::new(Shared {
                zone,
                resolver: Arc::new(Resolver::new(&config.upstream)),
                stats: Stats::default(),
                limits: Limits::default(),
                connections: Limits::default(),
                searches: RwLock::default(),
                expand_search: config.expand_search,
                backlog: config.backlog,
                witness: config.witness.clone(),
                ending: AtomicBool::new(false),
            }),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// What is to run for these sockets, each in a thread of its own: one for
    /// each UDP socket, and a last one for all else. They work for ever. To be
    /// called once.
    pub fn threads(&self, sockets: Sockets) -> Vec<Work> {
        let mut works: Vec<Work> = Vec::new();
        let mut listeners = Vec::new();
        for pair in sockets.0 {
            let (shared, handle) = (Arc::clone(&self.shared), self.handle.clone());
            let socket = Arc::new(pair.udp);
            works.push(Box::new(move || udp::serve(&shared, &socket, &handle)));
            listeners.push(pair.tcp);
        }
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            let shared = Arc::clone(&self.shared);
            works.push(Box::new(move || {
                runtime.block_on(tcp::serve_all(shared, listeners));
            }));
        }
        works
    }

    /// Answers a question of this process.
    pub(crate) fn ask(&self, packet: Vec<u8>) -> (Outcome, Source, Vec<u8>) {
        let (shared, client) = (&self.shared, IpAddr::from([127, 0, 0, 1]));
        let transport = Transport::Tcp;
        let mut reply = Vec::new();
        let (outcome, source) = shared.decide(&packet, client, transport, &mut reply, &self.handle);
        if matches!(outcome.verdict, Verdict::Reply | Verdict::Drop) {
            return (outcome, source, reply);
        }
        let mut job = Job {
            packet,
            client,
            transport,
            outcome,
            reply,
        };
        let shared = Arc::clone(shared);
        let finished = self.handle.spawn(async move {
            let source = job.finish(&shared).await;
            (job.outcome, source, job.reply)
        });
        let failed = Outcome::new(Verdict::Drop, Realm::None, 0, Rcode::ServFail);
        let finished = futures::executor::block_on(finished);
        finished.unwrap_or((failed, Source::Nobody, Vec::new()))
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    pub fn upstream(&self) -> Vec<ServerState> {
        self.shared.resolver.servers()
    }

    /// Answers of upstream servers that are kept, and questions to them that are
    /// under way.
    pub fn sizes(&self) -> (usize, usize) {
        self.shared.resolver.sizes()
    }

    /// Notes the search list of a pod, or that the pod has gone.
    pub fn set_search(&self, pod: IpAddr, search: Option<Arc<[Name]>>) {
        let mut searches = self
            .shared
            .searches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match search {
            Some(search) => drop(searches.insert(pod, search)),
            None => drop(searches.remove(&pod)),
        }
    }

    /// The search list of a pod, if it is known.
    pub fn search(&self, pod: IpAddr) -> Option<Arc<[Name]>> {
        self.shared.search(pod)
    }

    /// Tells of what upstream servers said lately, for who did not listen then.
    pub fn recall(&self, mut tell: impl FnMut(Found)) {
        for reply in self.shared.resolver.replies(Instant::now()) {
            Found::read(&reply).into_iter().for_each(&mut tell);
        }
    }

    /// Takes no more questions and waits until those under way are answered, at
    /// most so long. Questions that come meanwhile wait in the sockets.
    pub fn drain(&self, patience: Duration) {
        self.shared.ending.store(true, Ordering::Relaxed);
        let start = Instant::now();
        while self.shared.limits.under_way() > 0 && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long a reply waits until the addresses in it are in force. Who is told late
/// is better off than who is not told.
const WITNESS: Duration = Duration::from_millis(100);

/// Work for a thread.
pub type Work = Box<dyn FnOnce() + Send>;

impl Shared {
    /// Tells of a reply before it is sent, which it is to be when this rings.
    fn tell(&self, reply: &[u8]) -> Option<Ready> {
        let witness = self.witness.as_ref()?;
        match witness.listens() {
            true => witness.tell(Found::read(reply)?),
            false => None,
        }
    }

    /// The same, and waits.
    async fn tell_and_wait(&self, reply: &[u8]) {
        if let Some(ready) = self.tell(reply) {
            wait(ready).await;
        }
    }

    fn search(&self, pod: IpAddr) -> Option<Arc<[Name]>> {
        let searches = self.searches.read().unwrap_or_else(PoisonError::into_inner);
        searches.get(&pod).cloned()
    }

    /// Decides about a packet, with the help of what upstream servers said
    /// before. The reply, if there is one yet, is in `reply`.
    fn decide(
        self: &Arc<Self>,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
        reply: &mut Vec<u8>,
        runtime: &Handle,
    ) -> (Outcome, Source) {
        let search = match self.expand_search {
            true => self.search(client),
            false => None,
        };
        let asker = Asker {
            transport,
            recursion: self.resolver.is_available(),
            expand: self.expand_search,
            search: search.as_deref().unwrap_or_default(),
        };
        let mut outcome = answer(&self.zone, packet, asker, reply);
        match outcome.verdict {
            Verdict::Drop => return (outcome, Source::Dropped),
            Verdict::Forward if asker.recursion => {}
            // Nobody to ask: the failure that is in the buffer is the answer.
            Verdict::Forward => {
                outcome.verdict = Verdict::Reply;
                return (outcome, Source::Nobody);
            }
            Verdict::Alias(_) if !asker.recursion => {
                forward::failure(packet, reply);
                outcome.verdict = Verdict::Reply;
                outcome.rcode = 2;
                return (outcome, Source::Nobody);
            }
            _ => return (outcome, Source::Table),
        }
        let Ok(query) = Query::parse(packet) else {
            return (outcome, Source::Server);
        };
        let (key, now) = (Key::new(&query.name(), &query), Instant::now());
        if let Some((known, due)) = self.resolver.known(&key, now) {
            known.write(&query, crate::answer::limit(&query, transport), now, reply);
            outcome.verdict = Verdict::Reply;
            outcome.rcode = known.rcode.min(255) as u8;
            if due && let Some(permit) = self.limits.take(client) {
                let resolver = Arc::clone(&self.resolver);
                runtime.spawn(async move {
                    resolver.refresh(key).await;
                    drop(permit);
                });
            }
            return (outcome, Source::Cache);
        }
        (outcome, Source::Server)
    }
}

async fn wait(ready: Ready) {
    let _ = tokio::time::timeout(WITNESS, ready).await;
}
