//! What was asked: counted for all, and the last questions of each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::answer::{Outcome, Realm};
use crate::query::HEADER;

/// Questions that are remembered of each client.
const PER_CLIENT: usize = 32;
/// A node has some hundred pods; of more clients the one that was silent for
/// longest is forgotten.
const CLIENTS: usize = 512;
/// Upper ends of the buckets of latencies, in microseconds; a last one is open.
pub const LATENCIES: [u32; 11] = [
    10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000,
];

const KINDS: [(u16, &str); 9] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (5, "CNAME"),
    (16, "TXT"),
    (15, "MX"),
    (65, "HTTPS"),
    (255, "ANY"),
];
const RCODES: [&str; 7] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "other",
];
const REALMS: [Realm; 4] = [Realm::Cluster, Realm::Reverse, Realm::Upstream, Realm::None];

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The cluster's names.
    Table,
    Cache,
    /// The cache, past its time, because no server answered.
    Stale,
    Server,
    /// No server answered.
    Nobody,
    /// The client has too many questions under way.
    Refused,
    /// No reply was sent.
    Dropped,
    /// The client asked more than its part when more was asked than can be
    /// answered: no reply was sent.
    Limited,
}

const SOURCES: [Source; 8] = [
    Source::Table,
    Source::Cache,
    Source::Stale,
    Source::Server,
    Source::Nobody,
    Source::Refused,
    Source::Dropped,
    Source::Limited,
];

/// One question and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    pub(crate) realm: Realm,
    pub(crate) kind: u16,
    pub(crate) rcode: u8,
    pub(crate) source: Source,
    pub(crate) took: Duration,
}

impl Observed {
    pub(crate) fn new(outcome: &Outcome, source: Source, took: Duration) -> Self {
        Self {
            realm: outcome.realm,
            kind: outcome.kind,
            rcode: outcome.rcode,
            source,
            took,
        }
    }
}

/// Counters and rings.
#[derive(Debug)]
pub struct Stats {
    /// By realm, type and response code.
    counts: [[[AtomicU64; RCODES.len()]; KINDS.len() + 1]; REALMS.len()],
    sources: [AtomicU64; SOURCES.len()],
    /// Of answers from here (table and cache), and of those that servers gave.
    latencies: [[AtomicU64; LATENCIES.len() + 1]; 2],
    micros: [AtomicU64; 2],
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    rings: HashMap<IpAddr, Ring>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Ring {
    questions: u64,
    limited: u64,
    last_at: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    at: SystemTime,
    observed: Observed,
    /// Wire form, as it came.
    name: Vec<u8>,
}

/// Questions of one sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// `cluster`, `reverse`, `upstream` or `none`.
    pub zone: String,
    /// Type of the question.
    #[serde(rename = "type")]
    pub kind: String,
    pub rcode: String,
    pub questions: u64,
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub questions: u64,
    pub by_source: Vec<(Source, u64)>,
    pub by_sort: Vec<Count>,
    /// Answers by time: up to so many microseconds (0: longer than all others)
    /// so many of the node itself, so many of upstream servers.
    pub latencies: Vec<(u32, u64, u64)>,
    /// Microseconds of all of them together.
    pub latency_micros: (u64, u64),
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged {
    /// Milliseconds since 1970.
    pub at: u64,
    pub client: IpAddr,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub rcode: String,
    pub source: Source,
    pub micros: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| {
                std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))
            }),
            sources: std::array::from_fn(|_| AtomicU64::new(0)),
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            micros: std::array::from_fn(|_| AtomicU64::new(0)),
            clients: Mutex::default(),
        }
    }
}

impl Stats {
    /// Takes the log for a whole batch of questions.
    pub(crate) fn begin(&self, now: SystemTime) -> Recorder<'_> {
        Recorder {
            stats: self,
            clients: self.clients.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        }
    }

    /// All counters that are not zero.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut by_sort = Vec::new();
        for (realm, kinds) in REALMS.iter().zip(&self.counts) {
            for (index, rcodes) in kinds.iter().enumerate() {
                for (rcode, counter) in RCODES.iter().zip(rcodes) {
                    if read(counter) > 0 {
                        by_sort.push(Count {
                            zone: format!("{realm:?}").to_lowercase(),
                            kind: KINDS.get(index).map_or("other", |k| k.1).to_owned(),
                            rcode: (*rcode).to_owned(),
                            questions: read(counter),
                        });
                    }
                }
            }
        }
        let ends = LATENCIES.iter().copied().chain([0]);
        let [here, servers] = &self.latencies;
        Counts {
            questions: by_sort.iter().map(|count| count.questions).sum(),
            by_source: SOURCES
                .iter()
                .zip(&self.sources)
                .map(|(source, counter)| (*source, read(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            by_sort,
            latencies: ends
                .zip(here.iter().zip(servers))
                .map(|(end, (here, servers))| (end, read(here), read(servers)))
                .collect(),
            latency_micros: (read(&self.micros[0]), read(&self.micros[1])),
        }
    }

    /// Questions by client: those that were looked at, and those that were not
    /// ([`Source::Limited`]).
    pub fn clients(&self) -> Vec<(IpAddr, u64, u64)> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = clients.rings.iter();
        rings
            .map(|(client, ring)| (*client, ring.questions, ring.limited))
            .collect()
    }

    /// The last questions, oldest first; of one client, or of all.
    pub fn log(&self, of: Option<IpAddr>) -> Vec<Logged> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<_> = clients
            .rings
            .iter()
            .filter(|(client, _)| of.is_none_or(|of| of == **client))
            .flat_map(|(client, ring)| ring.entries.iter().map(|entry| entry.logged(*client)))
            .collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

/// Writes down questions that were answered together.
pub(crate) struct Recorder<'a> {
    stats: &'a Stats,
    clients: MutexGuard<'a, Clients>,
    now: SystemTime,
}

impl Recorder<'_> {
    pub(crate) fn observe(&mut self, client: IpAddr, packet: &[u8], observed: Observed) {
        let index = |list: &[Realm]| list.iter().position(|r| *r == observed.realm);
        let realm = index(&REALMS).unwrap_or(REALMS.len() - 1);
        let kind = KINDS.iter().position(|(kind, _)| *kind == observed.kind);
        let kind = kind.unwrap_or(KINDS.len());
        let rcode = usize::from(observed.rcode).min(RCODES.len() - 1);
        self.stats.counts[realm][kind][rcode].fetch_add(1, Ordering::Relaxed);
        let source = SOURCES
            .iter()
            .position(|s| *s == observed.source)
            .unwrap_or(0);
        self.stats.sources[source].fetch_add(1, Ordering::Relaxed);
        let micros = u32::try_from(observed.took.as_micros()).unwrap_or(u32::MAX);
        let bucket = LATENCIES.iter().position(|end| micros <= *end);
        let side = usize::from(!matches!(observed.source, Source::Table | Source::Cache));
        self.stats.micros[side].fetch_add(micros.into(), Ordering::Relaxed);
        self.stats.latencies[side][bucket.unwrap_or(LATENCIES.len())]
            .fetch_add(1, Ordering::Relaxed);
        if observed.source != Source::Dropped {
            self.clients.remember(client, self.now, packet, observed);
        }
    }

    /// A question that was not even looked at.
    pub(crate) fn limited(&mut self, client: IpAddr) {
        let index = SOURCES.iter().position(|s| *s == Source::Limited);
        self.stats.sources[index.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
        self.clients.ring(client).limited += 1;
    }
}

impl Clients {
    fn ring(&mut self, client: IpAddr) -> &mut Ring {
        if self.rings.len() >= CLIENTS && !self.rings.contains_key(&client) {
            let silent = self.rings.iter().min_by_key(|(_, ring)| ring.last_at);
            if let Some(silent) = silent.map(|(client, _)| *client) {
                self.rings.remove(&silent);
            }
        }
        self.clock += 1;
        let ring = self.rings.entry(client).or_default();
        ring.last_at = self.clock;
        ring
    }

    fn remember(&mut self, client: IpAddr, now: SystemTime, packet: &[u8], observed: Observed) {
        let ring = self.ring(client);
        let name = &packet[HEADER.min(packet.len())..];
        let name = &name[..name.iter().position(|b| *b == 0).map_or(0, |end| end + 1)];
        let index = (ring.questions % PER_CLIENT as u64) as usize;
        ring.questions += 1;
        match ring.entries.get_mut(index) {
            // The old name's memory is used again.
            Some(entry) => {
                entry.at = now;
                entry.observed = observed;
                entry.name.clear();
                entry.name.extend_from_slice(name);
            }
            None => ring.entries.push(Entry {
                at: now,
                observed,
                name: name.to_vec(),
            }),
        }
    }
}

impl Entry {
    fn logged(&self, client: IpAddr) -> Logged {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kind = self.observed.kind;
        Logged {
            at: since.as_millis() as u64,
            client,
            name: spelled(&self.name),
            kind: kind_name(kind),
            rcode: rcode_name(self.observed.rcode).to_owned(),
            source: self.observed.source,
            micros: self.observed.took.as_micros() as u64,
        }
    }
}

/// `A`, `AAAA`, or `TYPE64` for one that has no name here (RFC 3597).
pub(crate) fn kind_name(kind: u16) -> String {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| format!("TYPE{kind}"), |(_, name)| (*name).to_owned())
}

pub(crate) fn rcode_name(rcode: u8) -> &'static str {
    RCODES[usize::from(rcode).min(RCODES.len() - 1)]
}

/// A name in the spelling of who asked.
fn spelled(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some(length @ 1..) = wire.get(at).map(|length| usize::from(*length)) {
        let Some(label) = wire.get(at + 1..at + 1 + length) else {
            break;
        };
        // Writing to a string cannot fail.
        let _ = crate::name::show(&mut text, label);
        text.push('.');
        at += 1 + length;
    }
    match text.is_empty() {
        true => ".".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str) -> Vec<u8> {
        [&[0; HEADER][..], crate::Name::parse(name).unwrap().wire()].concat()
    }

    fn observed(rcode: u8) -> Observed {
        Observed {
            realm: Realm::Cluster,
            kind: 28,
            rcode,
            source: Source::Table,
            took: Duration::from_micros(31),
        }
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest() {
        let stats = Stats::default();
        let client = |n: u16| IpAddr::from([10, 244, (n >> 8) as u8, n as u8]);
        for n in 0..CLIENTS as u16 + 10 {
            let mut recorder = stats.begin(UNIX_EPOCH);
            recorder.observe(client(n), &packet("a.b"), observed(0));
        }
        assert_eq!(stats.clients().len(), CLIENTS);
        assert!(stats.log(Some(client(0))).is_empty(), "forgotten");
        for n in 0..3 * PER_CLIENT as u64 {
            let mut recorder = stats.begin(UNIX_EPOCH + Duration::from_millis(n));
            recorder.observe(client(99), &packet(&format!("n{n}")), observed(3));
        }
        let log = stats.log(Some(client(99)));
        assert_eq!(log.len(), PER_CLIENT);
        let last = log.last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.kind.as_str(), last.rcode.as_str()),
            ("n95.", "AAAA", "NXDOMAIN")
        );
        let counts = stats.counts();
        assert_eq!(counts.questions, CLIENTS as u64 + 10 + 96);
        assert_eq!(counts.by_sort.len(), 2);
        assert_eq!(counts.latencies[2].1, counts.questions, "within 100 µs");
    }
}
