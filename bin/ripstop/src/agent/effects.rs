//! What the plan says, done: routes, datapath, names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use ripstop_datapath::{Datapath, Error, NextHop, Part, PolicySettings, ResolvedRoute};
use ripstop_host::memory;
use ripstop_host::routes::{self, NodeRoutes};
use ripstop_model::{ObjectKey, ObjectKind, ObjectRef, Problem, Reason};
use ripstop_plan::{Tables, Update};
use tracing::{debug, error, info, warn};

use super::cni::{CniServer, SharedDatapath};
use super::feed::Feed;
use super::health::HealthServer;
use super::names::Names;
use super::status::Counts;
use super::strangers::Strangers;

/// Between audits when all is well.
const AUDIT: Duration = Duration::from_secs(60);
/// After a failure; doubled up to [`AUDIT`].
const RETRY: Duration = Duration::from_millis(500);

/// The things outside this process that follow the plan, and when to look after
/// them again.
pub(crate) struct Effects {
    pub(crate) routes: NodeRoutes,
    pub(crate) datapath: SharedDatapath,
    pub(crate) pods: Arc<CniServer>,
    pub(crate) names: Names,
    pub(crate) counts: Arc<Counts>,
    health: HealthServer,
    /// Services that did not fit, until everything did.
    unfit: BTreeSet<Problem>,
    problems_changed: bool,
    due: Instant,
    retry: Duration,
    /// Of the audit that goes on: what comes next, and what was found.
    auditing: Option<(Part, Vec<String>)>,
    policy: PolicySettings,
    pub(super) strangers: Strangers,
}

impl Effects {
    pub(crate) fn new(
        routes: NodeRoutes,
        datapath: SharedDatapath,
        pods: Arc<CniServer>,
        names: Names,
        counts: Arc<Counts>,
        health: HealthServer,
        policy: PolicySettings,
    ) -> Self {
        Self {
            routes,
            datapath,
            pods,
            names,
            counts,
            health,
            unfit: BTreeSet::new(),
            problems_changed: false,
            due: Instant::now() + AUDIT,
            retry: RETRY,
            auditing: None,
            policy,
            strangers: Strangers::default(),
        }
    }

    /// Takes pods that were here before this agent back into the datapath.
    pub(crate) fn adopt_pods(&mut self) {
        let mut datapath = lock(&self.datapath);
        for pod in self.pods.pods() {
            if let Err(error) = datapath.add_pod(&pod) {
                error!(pod = %pod.pod, %error, "a pod is without its datapath");
            }
        }
    }

    /// Everything as planned, for the first time: what an earlier agent left in
    /// the kernel and is still right stays as it is.
    pub(crate) fn start(&mut self, update: Update, feed: &Feed) {
        let start = Instant::now();
        let tables = feed.tables();
        let repaired = self.converge(tables);
        self.problems_changed |= self
            .health
            .follow(update.health, feed.node_port_addresses());
        for (range, kind) in &tables.ranges {
            self.names.set_range(*range, Some(*kind));
        }
        let (zone, names) = (&self.names.zone, update.names);
        // Names that were restored may be gone.
        zone.retain(|service| names.get(service).is_some_and(Option::is_some));
        zone.update(names);
        zone.set_known();
        memory::give_back();
        if let Some(repaired) = repaired {
            info!(
                frontends = tables.frontends.len(),
                routes = tables.routes.len(),
                names = zone.len(),
                changed = repaired.len(),
                millis = start.elapsed().as_millis(),
                "the network is as the API server has it"
            );
        }
    }

    /// One change: ways before the services that use them, names last.
    pub(crate) fn apply(&mut self, update: Update, feed: &Feed) {
        let start = Instant::now();
        let Update {
            rows,
            names,
            health,
            ..
        } = update;
        let done = self
            .apply_routes(&rows)
            .and_then(|()| lock(&self.datapath).apply(&rows).context("services"));
        for (range, kind) in &rows.ranges {
            self.names.set_range(*range, *kind);
        }
        self.names.zone.update(names);
        self.problems_changed |= self.health.follow(health, feed.node_port_addresses());
        self.counts.measures.syncs.add(start.elapsed());
        debug!(
            frontends = rows.frontends.len(),
            routes = rows.routes.len(),
            micros = start.elapsed().as_micros(),
            "applied a change"
        );
        if let Err(error) = done {
            self.failed(&error, feed.tables());
        }
    }

    /// Looks for pods that others have attached; all pods are known.
    pub(crate) fn find_strangers(&mut self, node: &str, feed: &Feed) {
        self.strangers.find(node, feed.policies(), &self.pods);
        self.problems_changed = true;
    }

    /// Why strangers are not adopted.
    pub(super) fn refuse_strangers(&mut self, why: BTreeMap<ObjectKey, String>) {
        self.problems_changed |= self.strangers.refuse(why);
    }

    /// What of the objects is ignored because this node cannot do it.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let services = self.unfit.iter().chain(self.health.problems());
        services.chain(self.strangers.problems())
    }

    /// Whether [`Effects::problems`] may have changed since the last call.
    pub(crate) fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// Whether the engine remembers connections of all pods.
    pub(crate) fn observe(&mut self, observe: bool) {
        if self.policy.observe == observe {
            return;
        }
        self.policy.observe = observe;
        if let Err(error) = lock(&self.datapath).set_policy_settings(self.policy) {
            warn!("connections for dry runs: {error}");
        }
    }

    /// Another engine has not been told.
    pub(crate) fn observe_again(&mut self) {
        self.policy.observe = false;
    }

    /// How long until [`Effects::audit`] has something to do.
    pub(crate) fn idle(&self) -> Duration {
        if self.auditing.is_some() {
            return Duration::ZERO;
        }
        self.due.saturating_duration_since(Instant::now())
    }

    /// Whether an audit is to begin.
    pub(crate) fn is_audit_due(&self) -> bool {
        self.auditing.is_none() && self.idle().is_zero()
    }

    /// Compares the kernel with the plan, if it is time to: a part of it, so that
    /// what happens meanwhile need not wait. True after the last part.
    pub(crate) fn audit(&mut self, feed: &Feed) -> bool {
        if !self.idle().is_zero() {
            return false;
        }
        let (part, mut repaired) = match self.auditing.take() {
            Some(going_on) => going_on,
            None => {
                let addresses = feed.node_port_addresses();
                self.problems_changed |= self.health.follow(BTreeMap::new(), addresses);
                Default::default()
            }
        };
        let next = match self.audit_part(feed.tables(), part) {
            Ok((found, next)) => {
                for line in &found {
                    warn!("repaired: {line}");
                }
                repaired.extend(found);
                next
            }
            Err(error) => {
                self.failed(&error, feed.tables());
                return true;
            }
        };
        if let Some(next) = next {
            self.auditing = Some((next, repaired));
            return false;
        }
        self.is_as_planned();
        self.counts.audited(repaired);
        self.pods.forget_gone();
        self.problems_changed |= self.strangers.forget_gone(feed.policies(), &self.pods);
        // Since the last audit everything may have been listed again.
        memory::give_back();
        true
    }

    /// The audit that goes on is of an engine that is not there any more.
    pub(super) fn forget_audit(&mut self) {
        self.auditing = None;
    }

    fn audit_part(&mut self, tables: &Tables, part: Part) -> Result<(Vec<String>, Option<Part>)> {
        let mut repaired = Vec::new();
        if part == Part::default() {
            repaired = self.audit_routes(tables)?;
        }
        // No pod comes or goes between the list and the comparison.
        let mut datapath = lock(&self.datapath);
        let pods = self.pods.pods();
        let (drift, next) = datapath
            .audit_part(tables, &pods, part)
            .context("datapath")?;
        repaired.extend(drift.repaired);
        Ok((repaired, next))
    }

    fn is_as_planned(&mut self) {
        self.due = Instant::now() + AUDIT;
        self.retry = RETRY;
        self.counts.healthy();
        self.problems_changed |= !self.unfit.is_empty();
        self.unfit.clear();
    }

    /// Makes routes and datapath exactly what is planned; says what differed.
    fn converge(&mut self, tables: &Tables) -> Option<Vec<String>> {
        match self.try_converge(tables) {
            Ok(repaired) => {
                self.is_as_planned();
                Some(repaired)
            }
            Err(error) => {
                self.failed(&error, tables);
                None
            }
        }
    }

    fn try_converge(&mut self, tables: &Tables) -> Result<Vec<String>> {
        let mut repaired = self.audit_routes(tables)?;
        // No pod comes or goes between the list and the comparison.
        let mut datapath = lock(&self.datapath);
        let pods = self.pods.pods();
        let drift = datapath.audit(tables, &pods).context("datapath")?;
        repaired.extend(drift.repaired);
        Ok(repaired)
    }

    /// Routes as planned; what was not so.
    fn audit_routes(&mut self, tables: &Tables) -> Result<Vec<String>> {
        let desired: BTreeMap<IpNet, IpAddr> = tables
            .routes
            .iter()
            .map(|(range, route)| (*range, route.via))
            .collect();
        let routes::Audit { routes, repaired } = self.routes.audit(&desired).context("routes")?;
        self.tell_routes(routes)?;
        Ok(repaired)
    }

    /// All ways to other nodes' pods, for an engine that knows none.
    pub(crate) fn resolved_routes(&mut self, tables: &Tables) -> Result<Vec<ResolvedRoute>> {
        let desired = tables
            .routes
            .iter()
            .map(|(range, route)| (*range, route.via))
            .collect();
        let audit = self.routes.audit(&desired).context("routes")?;
        Ok(audit.routes.into_iter().map(route).collect())
    }

    fn apply_routes(&mut self, rows: &ripstop_plan::Change) -> Result<()> {
        if rows.routes.is_empty() {
            return Ok(());
        }
        let changes = rows
            .routes
            .iter()
            .map(|(range, route)| (*range, route.as_ref().map(|route| route.via)));
        let resolved = self.routes.apply(changes).context("routes")?;
        self.tell_routes(resolved)
    }

    /// Tells the datapath which way leads where.
    fn tell_routes(&mut self, resolved: Vec<routes::ResolvedRoute>) -> Result<()> {
        let resolved: Vec<_> = resolved.into_iter().map(route).collect();
        let mut datapath = lock(&self.datapath);
        for tunnel in self.routes.tunnels() {
            datapath.attach_uplink(tunnel).context("tunnel")?;
        }
        datapath.apply_routes(&resolved).context("routes")
    }

    /// Part of the plan is not in the kernel: an audit will try again.
    fn failed(&mut self, error: &anyhow::Error, tables: &Tables) {
        if let Some(unfit) = unfit(error, tables) {
            self.problems_changed |= self.unfit.insert(unfit);
        }
        error!("{error:#}; trying again in {:?}", self.retry);
        self.counts.failed(format!("{error:#}"));
        self.auditing = None;
        self.due = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(AUDIT);
    }
}

/// The engine for oneself. A panic of another thread under the lock left nothing
/// that an audit would not repair.
pub(crate) fn lock(datapath: &SharedDatapath) -> MutexGuard<'_, dyn Datapath + 'static> {
    datapath.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service whose row did not fit into a table.
fn unfit(error: &anyhow::Error, tables: &Tables) -> Option<Problem> {
    let full = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(full @ Error::TableFull { row, .. }) => Some((full, row)),
        _ => None,
    });
    let (full, row) = full?;
    let words: Vec<&str> = row.split([' ', ',']).collect();
    let mut planned = tables.frontends.iter();
    let (_, of) = planned.find(|(frontend, _)| words.contains(&&*frontend.to_string()))?;
    Some(Problem {
        object: ObjectRef::new(ObjectKind::Service, of.service.clone()),
        reason: Reason::DoesNotFit,
        message: full.to_string(),
    })
}

fn route(route: routes::ResolvedRoute) -> ResolvedRoute {
    ResolvedRoute {
        prefix: route.prefix,
        next_hop: route.next_hop.map(|hop| NextHop {
            ifindex: hop.ifindex,
            gateway: hop.gateway,
            mtu: hop.mtu,
        }),
    }
}

#[cfg(test)]
mod tests {
    use ripstop_model::Protocol;
    use ripstop_plan::{Frontend, FrontendRow};

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let mut tables = Tables::default();
        for (host, name) in [(1, "web"), (11, "db")] {
            let frontend = Frontend {
                address: [10, 96, 0, host].into(),
                protocol: Protocol::Tcp,
                port: 80,
            };
            let row = FrontendRow::new(ObjectKey::new("shop", name));
            tables.frontends.insert(frontend, row);
        }
        let full = |row: &str| {
            let full = Error::TableFull {
                table: "frontends",
                limit: 2,
                row: row.to_owned(),
            };
            unfit(&anyhow::Error::new(full).context("services"), &tables)
        };
        let problem = full("frontend 10.96.0.11:80/TCP").unwrap();
        assert_eq!(
            problem.to_string(),
            "Service shop/db: table frontends is full (2 rows): frontend 10.96.0.11:80/TCP did not fit"
        );
        assert_eq!(full("frontend 10.96.0.2:80/TCP"), None);
        let other = anyhow::anyhow!("no memory for 10.96.0.11:80/TCP");
        assert_eq!(unfit(&other, &tables), None);
    }
}
