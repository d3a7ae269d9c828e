//! Policies that are only tried: what of the connections that there are they
//! would deny.
//!
//! Nothing of it is in the kernel. A second planner has the objects of the first
//! and these policies besides; its rows are asked about each connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ripstop_datapath::Connection;
use ripstop_model::{ClusterNetworkPolicy, NetworkPolicy, ObjectKey};
use ripstop_plan::policy::{Direction, PolicyPlanner, PolicyTables};
use ripstop_watch::{Converted, ObjectEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{drops, name_of};
use crate::agent::effects::{Effects, lock};
use crate::agent::feed::Feed;

/// Between two looks at connections, while a policy of the API is tried: no more
/// than `Datapath::observed` says, so that none is missed.
const PAUSE: Duration = Duration::from_secs(5);
/// For how long connections of all pods are remembered after they were asked for.
const OBSERVED: Duration = Duration::from_secs(30);
/// Clients' ports of one kind of connection that are told apart.
const MOST: usize = 1024;

/// What would be denied, as people are told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DryRunView {
    /// Policies that are tried.
    pub(crate) policies: Vec<String>,
    /// Connections of this node's pods just now.
    pub(crate) connections: usize,
    pub(crate) denied: Vec<WouldDeny>,
}

/// Connections of one kind that would be denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WouldDeny {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) protocol: String,
    pub(crate) port: Option<u16>,
    pub(crate) direction: String,
    pub(crate) by: String,
    /// How many have been seen.
    pub(crate) connections: usize,
}

/// The policies that are tried, and what was seen.
#[derive(Debug, Default)]
pub(crate) struct DryRun {
    policies: Policies,
    seen: Seen,
    looked: Option<Instant>,
    asked: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
struct Policies {
    network: BTreeMap<ObjectKey, NetworkPolicy>,
    cluster: BTreeMap<String, ClusterNetworkPolicy>,
}

/// Clients' ports by what the connections are.
type Seen = BTreeMap<Kind, BTreeSet<u16>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    client: IpAddr,
    server: IpAddr,
    protocol: u8,
    port: u16,
    direction: Direction,
    by: String,
}

impl DryRun {
    /// A NetworkPolicy that goes to the plan, or is only tried.
    pub(crate) fn network(
        &mut self,
        event: ObjectEvent<NetworkPolicy, ObjectKey>,
        planner: &mut PolicyPlanner,
    ) {
        let tried = &mut self.policies.network;
        let before = tried.len();
        match event {
            ObjectEvent::Applied(policy) if policy.dry_run => {
                planner.remove_policy(&policy.key);
                tried.insert(policy.key.clone(), policy);
                self.seen.clear();
            }
            ObjectEvent::Applied(policy) => {
                tried.remove(&policy.key);
                planner.upsert_policy(policy);
            }
            ObjectEvent::Deleted(key) => {
                tried.remove(&key);
                planner.remove_policy(&key);
            }
            ObjectEvent::Listed(keys) => {
                tried.retain(|key, _| keys.contains(key));
                planner.retain_policies(|key| keys.contains(key));
            }
        }
        self.forget_if(before != self.policies.network.len());
    }

    /// As [`Self::network`], for a ClusterNetworkPolicy.
    pub(crate) fn cluster(
        &mut self,
        event: ObjectEvent<ClusterNetworkPolicy, String>,
        planner: &mut PolicyPlanner,
    ) {
        let tried = &mut self.policies.cluster;
        let before = tried.len();
        match event {
            ObjectEvent::Applied(policy) if policy.dry_run => {
                planner.remove_cluster_policy(&policy.name);
                tried.insert(policy.name.clone(), policy);
                self.seen.clear();
            }
            ObjectEvent::Applied(policy) => {
                tried.remove(&policy.name);
                planner.upsert_cluster_policy(policy);
            }
            ObjectEvent::Deleted(name) => {
                tried.remove(&name);
                planner.remove_cluster_policy(&name);
            }
            ObjectEvent::Listed(names) => {
                tried.retain(|name, _| names.contains(name));
                planner.retain_cluster_policies(|name| names.contains(name));
            }
        }
        self.forget_if(before != self.policies.cluster.len());
    }

    fn forget_if(&mut self, changed: bool) {
        if changed {
            self.seen.clear();
        }
    }

    /// Whether connections of all pods are to be remembered.
    pub(crate) fn observes(&self) -> bool {
        let asked = self.asked.is_some_and(|at| at.elapsed() < OBSERVED);
        asked || !self.policies.is_empty()
    }

    /// How long until there is something to do.
    pub(crate) fn idle(&self) -> Duration {
        if self.policies.is_empty() {
            return match self.asked {
                Some(at) if at.elapsed() < OBSERVED => OBSERVED - at.elapsed(),
                _ => Duration::MAX,
            };
        }
        self.looked
            .map_or(Duration::ZERO, |at| PAUSE.saturating_sub(at.elapsed()))
    }
}

impl Policies {
    fn is_empty(&self) -> bool {
        self.network.is_empty() && self.cluster.is_empty()
    }

    /// Policies of manifests.
    fn read(manifests: &[Value]) -> Result<Self> {
        let mut policies = Self::default();
        for value in manifests {
            let name = &value["metadata"]["name"];
            let what = || format!("{} {name}", value["kind"]);
            match value["kind"].as_str() {
                Some("NetworkPolicy") => {
                    let object = serde_json::from_value(value.clone()).with_context(what)?;
                    let one = sound(ripstop_watch::network_policy(&object))?;
                    policies.network.insert(one.key.clone(), one);
                }
                Some("ClusterNetworkPolicy") => {
                    let object = serde_json::from_value(value.clone()).with_context(what)?;
                    let one = sound(ripstop_watch::cluster_network_policy(&object))?;
                    policies.cluster.insert(one.name.clone(), one);
                }
                _ => anyhow::bail!("{} is no policy", what()),
            }
        }
        Ok(policies)
    }

    fn names(&self) -> Vec<String> {
        let network = self
            .network
            .keys()
            .map(|key| format!("NetworkPolicy {key}"));
        let cluster = self.cluster.keys();
        let cluster = cluster.map(|name| format!("ClusterNetworkPolicy {name}"));
        network.chain(cluster).collect()
    }

    /// The rows that there would be.
    fn rows(&self, feed: &Feed) -> PolicyTables {
        let mut planner = feed.policies().clone();
        let mut tables = feed.tables().policy.clone();
        for policy in self.network.values() {
            planner.upsert_policy(policy.clone());
        }
        for policy in self.cluster.values() {
            planner.upsert_cluster_policy(policy.clone());
        }
        while !planner.is_settled() {
            planner.take_change(&mut tables);
        }
        tables
    }
}

fn sound<T>(read: Converted<T>) -> Result<T> {
    let problem = read.problems.first().map(ToString::to_string);
    ensure!(problem.is_none(), "{}", problem.unwrap_or_default());
    read.model.context("an object without a name")
}

/// Looks at connections, if it is time to.
pub(crate) fn look(feed: &mut Feed, effects: &Effects) {
    if feed.dry_run.policies.is_empty() || !feed.dry_run.idle().is_zero() {
        return;
    }
    feed.dry_run.looked = Some(Instant::now());
    let denied = match observed(effects) {
        Ok(connections) => denied(feed, &feed.dry_run.policies, &connections),
        Err(error) => return tracing::warn!("dry run: {error:#}"),
    };
    for (kind, ports) in denied {
        let seen = feed.dry_run.seen.entry(kind).or_default();
        let room = MOST.saturating_sub(seen.len());
        seen.extend(ports.into_iter().take(room));
    }
}

/// What the given policies would deny just now; without any, what those of the
/// API would have denied since they are there.
pub(super) fn dry_run(
    feed: &mut Feed,
    effects: &Effects,
    manifests: &[Value],
) -> Result<DryRunView> {
    let connections = observed(effects)?;
    let (policies, seen) = match manifests {
        [] => {
            let tried = &feed.dry_run.policies;
            let mut seen = feed.dry_run.seen.clone();
            for (kind, ports) in denied(feed, tried, &connections) {
                seen.entry(kind).or_default().extend(ports);
            }
            (tried.names(), seen)
        }
        given => {
            let given = Policies::read(given)?;
            (given.names(), denied(feed, &given, &connections))
        }
    };
    feed.dry_run.asked = Some(Instant::now());
    let planner = feed.policies();
    let name = |address| name_of(planner, address).unwrap_or_else(|| address.to_string());
    let views = seen.into_iter().map(|(kind, ports)| WouldDeny {
        from: name(kind.client),
        to: name(kind.server),
        protocol: drops::protocol(kind.protocol),
        port: (kind.port != 0).then_some(kind.port),
        direction: kind.direction.to_string(),
        by: kind.by,
        connections: ports.len(),
    });
    Ok(DryRunView {
        policies,
        connections: going_on(effects)?,
        denied: views.collect(),
    })
}

/// Connections that go on, and those that began and ended since the last look.
fn observed(effects: &Effects) -> Result<Vec<Connection>> {
    let connections = lock(&effects.datapath).observed();
    connections.context("reading the kernel's connections")
}

fn going_on(effects: &Effects) -> Result<usize> {
    let connections = lock(&effects.datapath).connections();
    Ok(connections
        .context("reading the kernel's connections")?
        .len())
}

/// Connections that are allowed and would not be.
fn denied(feed: &Feed, policies: &Policies, connections: &[Connection]) -> Seen {
    let now = &feed.tables().policy;
    let then = policies.rows(feed);
    let mut seen = Seen::new();
    for connection in connections {
        let Connection {
            protocol,
            client,
            server,
        } = *connection;
        let ends = [
            (client.ip(), Direction::Egress, server.ip()),
            (server.ip(), Direction::Ingress, client.ip()),
        ];
        for (pod, direction, other) in ends {
            let judge = |tables: &PolicyTables| {
                tables.judge(pod, direction, other, protocol, server.port())
            };
            // What is denied already is counted as that.
            if judge(now).is_none_or(|outcome| !outcome.allowed) {
                continue;
            }
            let Some(outcome) = judge(&then).filter(|outcome| !outcome.allowed) else {
                continue;
            };
            let kind = Kind {
                client: client.ip(),
                server: server.ip(),
                protocol,
                port: server.port(),
                direction,
                by: then.attribution(outcome).to_string(),
            };
            seen.entry(kind).or_default().insert(client.port());
        }
    }
    seen
}
