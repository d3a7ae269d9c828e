//! What the agent says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use ripstop_dns::{Counts as DnsCounts, ServerState};
use ripstop_host::records::Record;
use ripstop_model::{Problem, Reason};
use ripstop_watch::{ApiHealth, ApiState};
use serde::{Deserialize, Serialize};

use super::advice::{Advice, advice};
use super::cni::{CniServer, SharedDatapath};
use super::effects::lock;
use super::metrics::Measures;
use super::names::Names;
use super::nodes::NodeView;
use super::policies::PoliciesView;
use super::recent::{Counters, Recent};

/// State of one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: u64,
    /// `up`, `away` or `connecting`.
    pub(crate) api: String,
    /// Last error by kind of object, while the API is away.
    pub(crate) api_errors: BTreeMap<String, String>,
    /// False until every object has been seen once: the kernel may then have
    /// what an earlier agent left.
    pub(crate) synced: bool,
    pub(crate) datapath: Engine,
    pub(crate) pods: usize,
    /// Pods of these that another plugin had attached; none with an agent that is older.
    #[serde(default)]
    pub(crate) adopted: Vec<Adopted>,
    pub(crate) pod_ranges: Vec<PodRange>,
    /// Absent while the agent is too busy to say.
    pub(crate) policies: Option<PoliciesView>,
    /// Absent while the agent is too busy to say.
    pub(crate) nodes: Option<Vec<NodeView>>,
    pub(crate) names: usize,
    pub(crate) dns: Dns,
    pub(crate) audits: Audits,
    /// What was counted within the last ten minutes; nothing with an agent that is
    /// older, as below.
    #[serde(default)]
    pub(crate) lately: Counters,
    /// What is not as it should be, the worst first.
    #[serde(default)]
    pub(crate) degraded: Vec<Advice>,
    /// What of the API's objects is ignored, and why.
    pub(crate) ignored: Vec<Ignored>,
    /// How often something has been ignored since the start, by reason.
    pub(crate) ignored_total: BTreeMap<String, u64>,
    /// What of the plan could not be done yet.
    pub(crate) problem: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Engine {
    pub(crate) mode: String,
    /// Why this engine.
    pub(crate) reason: String,
    /// This start found programs and tables in the kernel and kept them.
    pub(crate) adopted: bool,
    pub(crate) tables: Vec<Table>,
    pub(crate) drops: BTreeMap<String, u64>,
    /// Packets of `connection_share` by pod, of the last hour; an agent that is older
    /// does not say.
    #[serde(default)]
    pub(crate) crowding: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Adopted {
    pub(crate) pod: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// The other plugin's.
    pub(crate) network: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PodRange {
    pub(crate) range: String,
    pub(crate) used: usize,
    pub(crate) available: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dns {
    /// False until the cluster's names have been listed, or restored.
    pub(crate) known: bool,
    #[serde(flatten)]
    pub(crate) counts: DnsCounts,
    pub(crate) upstream: Vec<ServerState>,
    /// Answers of upstream servers that are kept.
    pub(crate) cached: usize,
    /// Questions to upstream servers that wait for an answer.
    pub(crate) under_way: usize,
    /// Questions by client: the pod, or the address if it is none of this node.
    pub(crate) clients: BTreeMap<String, u64>,
    /// Questions that were thrown away because more was asked than can be
    /// answered, by the client that asked more than its part.
    pub(crate) limited: BTreeMap<String, u64>,
}

/// A part of an object that makes no sense, or that another object has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ignored {
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Comparisons of the kernel with the plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Audits {
    pub(crate) runs: u64,
    pub(crate) repaired: u64,
    /// What the last one that found something repaired.
    pub(crate) last: Vec<String>,
}

/// What the control loop knows and nobody else.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    inner: Mutex<Inner>,
    pub(crate) measures: Measures,
    recent: Mutex<Recent>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    synced: bool,
    audits: Audits,
    ignored: BTreeSet<Problem>,
    ignored_total: BTreeMap<Reason, u64>,
    problem: Option<String>,
    engine_reason: String,
    /// When the kernel was last as planned.
    updated: Timestamp,
}

impl Counts {
    pub(crate) fn engine_reason(&self, reason: String) {
        self.change(|inner| inner.engine_reason = reason);
    }

    pub(crate) fn synced(&self) {
        self.change(|inner| inner.synced = true);
    }

    /// Notes the problems that there are; returns those that were not there.
    pub(crate) fn new_problems(&self, problems: BTreeSet<Problem>) -> Vec<Problem> {
        let mut new = Vec::new();
        self.change(|inner| {
            new = problems.difference(&inner.ignored).cloned().collect();
            for problem in &new {
                *inner.ignored_total.entry(problem.reason).or_default() += 1;
            }
            inner.ignored = problems;
        });
        new
    }

    pub(crate) fn failed(&self, problem: String) {
        self.change(|inner| inner.problem = Some(problem));
    }

    pub(crate) fn healthy(&self) {
        self.change(|inner| {
            inner.problem = None;
            inner.updated = Timestamp::now();
        });
    }

    /// Whether this node carries services as the cluster wants it to.
    pub(crate) fn is_healthy(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.synced && inner.problem.is_none()
    }

    pub(crate) fn updated(&self) -> Timestamp {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.updated
    }

    pub(crate) fn audited(&self, repaired: Vec<String>) {
        self.change(|inner| {
            inner.audits.runs += 1;
            inner.audits.repaired += repaired.len() as u64;
            if !repaired.is_empty() {
                inner.audits.last = repaired;
            }
        });
    }

    fn look(&self, counters: Counters) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.look(Instant::now(), counters);
    }

    fn lately(&self, counters: Counters) -> Counters {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.counted(Instant::now(), counters)
    }

    fn change(&self, f: impl FnOnce(&mut Inner)) {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> Inner {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Everything that a status is made of.
pub(crate) struct Sources {
    pub(crate) node: String,
    pub(crate) started: Instant,
    pub(crate) api: Arc<ApiHealth>,
    pub(crate) datapath: SharedDatapath,
    pub(crate) pods: Arc<CniServer>,
    pub(crate) names: Names,
    pub(crate) counts: Arc<Counts>,
}

impl Sources {
    /// `policies` and `nodes`: what the main thread says of them.
    pub(crate) fn status(
        &self,
        policies: Option<PoliciesView>,
        nodes: Option<Vec<NodeView>>,
    ) -> Status {
        let engine = lock(&self.datapath).status();
        let counts = self.counts.read();
        let dns = self.dns();
        let drops: BTreeMap<String, u64> = named(engine.drops);
        let lately = self.counts.lately(Counters {
            drops: drops.clone(),
            limited: dns.limited.clone(),
            repaired: counts.audits.repaired,
        });
        let (api, errors) = match self.api.state() {
            ApiState::Up => ("up", BTreeMap::new()),
            ApiState::Connecting => ("connecting", BTreeMap::new()),
            ApiState::Away(errors) => ("away", errors),
        };
        let mut status = Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            api: api.to_owned(),
            api_errors: errors
                .into_iter()
                .map(|(kind, e)| (kind.to_owned(), e))
                .collect(),
            synced: counts.synced,
            datapath: Engine {
                mode: engine.mode.to_owned(),
                reason: counts.engine_reason,
                adopted: engine.adopted,
                tables: engine.tables.into_iter().map(table).collect(),
                drops,
                crowding: engine
                    .crowding
                    .into_iter()
                    .map(|(pod, count)| (pod.to_string(), count))
                    .collect(),
            },
            pods: self.pods.pods().len(),
            adopted: self.pods.taken_over().into_iter().map(adopted).collect(),
            pod_ranges: self.pods.usage().into_iter().map(pod_range).collect(),
            policies,
            nodes,
            names: self.names.zone.len(),
            dns,
            audits: counts.audits,
            lately,
            degraded: Vec::new(),
            ignored: counts.ignored.iter().map(ignored).collect(),
            ignored_total: counts
                .ignored_total
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), *count))
                .collect(),
            problem: counts.problem,
        };
        status.degraded = advice(&status);
        status
    }

    /// Looks at the counters, from time to time, so that [`Status::lately`] can be
    /// told.
    pub(crate) fn look(&self) {
        let drops = lock(&self.datapath).status().drops;
        self.counts.look(Counters {
            drops: named(drops),
            limited: self.dns().limited,
            repaired: self.counts.read().audits.repaired,
        });
    }
}

fn named(counts: Vec<(&'static str, u64)>) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts.map(|(name, n)| (name.to_owned(), n)).collect()
}

fn ignored(problem: &Problem) -> Ignored {
    Ignored {
        object: problem.object.to_string(),
        reason: problem.reason.name().to_owned(),
        message: problem.message.clone(),
    }
}

impl Sources {
    /// The engine that runs now.
    pub(crate) fn mode(&self) -> &'static str {
        lock(&self.datapath).status().mode
    }

    pub(crate) fn measures(&self) -> &Measures {
        &self.counts.measures
    }

    /// When the kernel was last as planned, seconds since 1970; 0: never.
    pub(crate) fn updated_seconds(&self) -> f64 {
        self.counts.updated().as_millisecond() as f64 / 1e3
    }

    fn dns(&self) -> Dns {
        let server = &self.names.server;
        let (cached, under_way) = server.sizes();
        let pods = self.pods.pods();
        let (mut clients, mut limited) = (BTreeMap::new(), BTreeMap::new());
        for (client, looked_at, not) in server.stats().clients() {
            let pod = pods.iter().find(|pod| pod.addresses.contains(&client));
            let name = pod.map_or_else(|| client.to_string(), |pod| pod.pod.to_string());
            if not > 0 {
                *limited.entry(name.clone()).or_default() += not;
            }
            *clients.entry(name).or_default() += looked_at;
        }
        Dns {
            known: self.names.zone.is_known(),
            counts: server.stats().counts(),
            upstream: server.upstream(),
            cached,
            under_way,
            clients,
            limited,
        }
    }
}

fn table((name, rows, limit): (&'static str, u64, u64)) -> Table {
    Table {
        name: name.to_owned(),
        rows,
        limit,
    }
}

fn adopted(record: Record) -> Adopted {
    Adopted {
        pod: record.pod.pod.to_string(),
        addresses: record.pod.addresses,
        network: record.network,
    }
}

fn pod_range((range, used, available): (ipnet::IpNet, usize, usize)) -> PodRange {
    PodRange {
        range: range.to_string(),
        used,
        available,
    }
}
