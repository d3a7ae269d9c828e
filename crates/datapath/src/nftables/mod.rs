//! The nftables engine: services by the kernel's NAT, packets by its routing.
//!
//! One table, `inet ripstop`, that no one else's rules know of. A new
//! connection looks its frontend up, then the frontend's class, then a slot:
//! three lookups, however many services there are. Everything else of the
//! connection is connection tracking.
//!
//! The table stays while no agent runs, and the next one adopts it.

mod audit;
mod class;
mod commit;
mod flows;
mod keys;
mod pods;
mod policy;
mod preflight;
mod pressure;
mod ranges;
mod readback;
mod refuse;
mod rest;
mod rows;
mod rules;
mod schema;
mod segments;
mod sets;
mod sources;
mod sources_nat;
mod spread;
mod state;
mod write;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::{LocalPod, Protocol};
use ripstop_netlink::conntrack::Conntrack;
use ripstop_netlink::nftables::{Family, Nftables};
use ripstop_netlink::sysctl;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Frontend, FrontendRow, Range, Tables};

use crate::engine::{Datapath, Drift, EngineStatus, Error, PolicySettings, ResolvedRoute};
use crate::regular::Regular;
use crate::state::{Connection, Denials, FrontendState, TranslatedFlow};
use class::Class;
use policy::Policies;
use ranges::Interval;
use rows::Placed;
use segments::Segments;
use sets::{FAMILIES, Set};
use sources::Sources;
use write::{Changes, SetOf};

pub use preflight::{foreign_drops, try_table};
pub use rest::end_rest;

/// Name of the table; whatever is in it is ours.
pub const TABLE: &str = "ripstop";
/// In the table's comment: loopback addresses were not routed before.
const LOCALNET_WAS_OFF: &str = "localnet-was-off";
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

/// What the engine is told of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At most one per family.
    pub node_addresses: Vec<IpAddr>,
    /// How many connections the node has room for; `None`: what the kernel says
    /// (`nf_conntrack_max`).
    pub connections: Option<u64>,
}

/// The engine of one node. Dropped, it leaves everything in the kernel.
#[derive(Debug)]
pub struct NftEngine {
    config: Config,
    nftables: RefCell<Nftables>,
    conntrack: RefCell<Conntrack>,
    /// Holds pods back that begin too many connections.
    valve: Option<Regular>,
    adopted: bool,
    /// Another version's table is in the kernel. Ours takes its place, in one
    /// transaction, with the first audit: then it is known what belongs in it.
    takeover_pending: bool,
    /// Loopback addresses were not routed before there was a table.
    localnet_was_off: bool,
    /// Another engine has everything.
    gives_way: bool,
    taken: flows::Taken,
    /// As the kernel has them.
    frontends: BTreeMap<Frontend, Placed>,
    classes: BTreeMap<(Family, Class), usize>,
    tables: spread::Tables,
    /// Classes that nobody is of since the last change.
    retired: BTreeSet<(Family, Class)>,
    intervals: BTreeMap<SetOf, BTreeSet<Interval>>,
    /// The container that has an address.
    addresses: BTreeMap<IpAddr, String>,
    ranges: BTreeMap<IpNet, Range>,
    /// Rows of the plan that a pod's port of the node hides.
    hidden: BTreeMap<Frontend, FrontendRow>,
    /// By container id: those that this process knows.
    pods: BTreeMap<String, LocalPod>,
    policies: Policies,
    sources: Sources,
    segments: Segments,
}

impl NftEngine {
    /// Makes the table, or adopts the one that an earlier engine left.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel has no nf_tables, or what this process
    /// may do is not enough; nothing is changed then.
    pub fn open(config: Config) -> Result<Self, Error> {
        let nftables = Nftables::new().map_err(unsupported)?;
        let conntrack = Conntrack::new().map_err(unsupported)?;
        let mut engine = Self {
            config,
            nftables: RefCell::new(nftables),
            conntrack: RefCell::new(conntrack),
            valve: None,
            adopted: false,
            takeover_pending: false,
            localnet_was_off: false,
            gives_way: false,
            taken: flows::Taken::default(),
            frontends: BTreeMap::new(),
            classes: BTreeMap::new(),
            tables: spread::Tables::default(),
            retired: BTreeSet::new(),
            intervals: BTreeMap::new(),
            addresses: BTreeMap::new(),
            ranges: BTreeMap::new(),
            hidden: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: Policies::default(),
            sources: Sources::default(),
            segments: Segments::default(),
        };
        if policy::remembers(engine.nftables.get_mut()) {
            engine.policies.generation = Some(policy::Generation::first());
        }
        let comment = engine
            .nftables
            .get_mut()
            .table(TABLE)
            .map_err(unsupported)?;
        let noted = comment.as_ref();
        engine.localnet_was_off = noted.is_some_and(|c| c.ends_with(LOCALNET_WAS_OFF));
        match comment {
            Some(comment) if comment.starts_with(&engine.schema()) => {
                engine.read_back()?;
                engine.adopted = true;
            }
            Some(_) => engine.takeover_pending = true,
            None => {
                let mut changes = engine.anew()?;
                engine.commit(&mut changes).map_err(|error| match error {
                    Error::Kernel { operation, source } => Error::Unsupported {
                        reason: format!("{operation}: {source}"),
                    },
                    other => other,
                })?;
            }
        }
        for chain in foreign_drops().unwrap_or_default() {
            tracing::warn!(
                "{chain} drops what it does not accept: packets of pods need a rule there"
            );
        }
        engine.valve = Some(pressure::start(engine.config.connections)?);
        Ok(engine)
    }

    /// The table, empty. Loopback addresses become routable: the guard in the
    /// table keeps strangers from them.
    fn anew(&mut self) -> Result<Changes, Error> {
        let mut comment = self.schema();
        self.localnet_was_off |= self.set_localnet(true)?;
        if self.localnet_was_off {
            comment = format!("{comment} {LOCALNET_WAS_OFF}");
        }
        self.frontends.clear();
        self.classes.clear();
        self.retired.clear();
        self.intervals.clear();
        self.addresses.clear();
        self.ranges.clear();
        self.policies.clear();
        self.sources.clear();
        self.segments.clear();
        let base = rules::base(&self.config.node_addresses, self.policies.base());
        Ok(Changes::anew(comment, base))
    }

    /// True if it was the other way round.
    fn set_localnet(&self, on: bool) -> Result<bool, Error> {
        let kernel = |error: sysctl::Error| Error::Kernel {
            operation: format!("sysctl {}", error.name),
            source: error.source,
        };
        // Of the network namespace of this thread.
        let was_on = sysctl::get(ROUTE_LOCALNET).map_err(kernel)? == "1";
        if was_on == on {
            return Ok(false);
        }
        sysctl::set(ROUTE_LOCALNET, if on { "1" } else { "0" }).map_err(kernel)?;
        Ok(true)
    }

    /// What is in the kernel becomes what counts as applied.
    fn read_back(&mut self) -> Result<readback::Raw, Error> {
        let raw = readback::raw(self.nftables.get_mut())?;
        self.frontends = readback::placed(&readback::frontends(&raw));
        self.classes = readback::classes(&raw)
            .into_iter()
            .map(|class| (class, 0))
            .collect();
        for (frontend, placed) in &self.frontends {
            let key = (Family::of(&frontend.address), placed.class());
            *self.classes.entry(key).or_default() += 1;
        }
        self.intervals = FAMILIES
            .into_iter()
            .flat_map(|family| ranges::SETS.map(|set| (set, family)))
            .map(|set| (set, readback::intervals(&raw, set)))
            .collect();
        self.ranges.clear();
        for family in FAMILIES {
            let of_family = ranges::SETS
                .into_iter()
                .map(|set| (set, self.intervals[&(set, family)].clone()))
                .collect();
            self.ranges.extend(ranges::rows(&of_family));
        }
        self.addresses = readback::pods(&raw);
        self.policies.read_pods(&raw);
        self.sources.read_back(&raw);
        for family in FAMILIES {
            let elements = raw.get(&(Set::Segments, family)).into_iter().flatten();
            let parts = write::parts(elements.map(|(_, element)| element.clone()));
            self.segments.read_back(family, parts);
        }
        Ok(raw)
    }

    /// Rows as they are to be; `None` removes one. Gives the frontends that
    /// differed.
    fn write(
        &mut self,
        rows: impl IntoIterator<Item = (Frontend, Option<(FrontendRow, bool)>)>,
    ) -> Result<Vec<Frontend>, Error> {
        let mut changed = Vec::new();
        let mut changes = Changes::default();
        let mut pending = Vec::new();
        for (frontend, row) in rows {
            let before = self.frontends.get(&frontend);
            let after = row.map(|(row, port)| Placed::new(row, port, before, &mut self.tables));
            if before == after.as_ref() {
                continue;
            }
            pending.push(self.gather(&mut changes, frontend, after));
            changed.push(frontend);
            if self.is_large(&changes) {
                self.finish(&mut changes, std::mem::take(&mut pending))?;
            }
        }
        self.finish(&mut changes, pending)?;
        Ok(changed)
    }

    /// Adds what one frontend needs to the changes, and takes it in; gives what
    /// it was before.
    fn gather(
        &mut self,
        changes: &mut Changes,
        frontend: Frontend,
        after: Option<Placed>,
    ) -> (Frontend, Option<Placed>) {
        let family = Family::of(&frontend.address);
        if let Some(after) = &after {
            let key = (family, after.class());
            if !self.classes.contains_key(&key) {
                changes.add_class(family, key.1);
            }
            *self.classes.entry(key).or_default() += 1;
        }
        let before = self.frontends.remove(&frontend);
        let differing = rows::differing(before.as_ref(), after.as_ref(), &mut self.tables);
        let elements = |placed: Option<&Placed>, beside| {
            placed.map_or(Vec::new(), |placed| {
                placed.elements_beside(&frontend, beside, &differing)
            })
        };
        changes.replace(
            family,
            elements(before.as_ref(), after.as_ref()),
            elements(after.as_ref(), before.as_ref()),
        );
        if let Some(before) = &before {
            let count = self.classes.entry((family, before.class())).or_default();
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            self.frontends.insert(frontend, after);
        }
        (frontend, before)
    }

    /// Commits; then forgets what connection tracking and affinity still know.
    fn finish(
        &mut self,
        changes: &mut Changes,
        gathered: Vec<(Frontend, Option<Placed>)>,
    ) -> Result<(), Error> {
        let unused: BTreeSet<_> = self
            .classes
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(key, _)| *key)
            .collect();
        // A packet on its way may have been told of a class before this change:
        // its chain goes with the next one.
        for (family, class) in unused.intersection(&self.retired) {
            changes.remove_class(*family, *class);
            self.classes.remove(&(*family, *class));
        }
        self.retired = unused.difference(&self.retired).copied().collect();
        if let Err(error) = self.commit(changes) {
            // The kernel has what it had: what that is, it says itself.
            let read = self.read_back().map(drop);
            return Err(error).or_else(|error| read.and(Err(error)));
        }
        self.forget_udp(gathered.iter().map(|(frontend, _)| *frontend))?;
        self.forget_affinities(&gathered)
    }

    /// Flows of UDP live on in connection tracking as long as packets come: with
    /// a backend that is gone they would never reach another.
    fn forget_udp(&mut self, changed: impl Iterator<Item = Frontend>) -> Result<(), Error> {
        let changed: BTreeSet<Frontend> = changed
            .filter(|frontend| frontend.protocol == Protocol::Udp)
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let frontends = &self.frontends;
        flows::forget(self.conntrack.get_mut(), &changed, |frontend, backend| {
            let placed = frontends.get(frontend);
            placed.is_some_and(|placed| placed.backends().any(|b| b == backend))
        })
    }

    fn forget_affinities(&mut self, gathered: &[(Frontend, Option<Placed>)]) -> Result<(), Error> {
        let forgotten: BTreeSet<Frontend> = gathered
            .iter()
            .filter(|(frontend, before)| {
                let now = self.frontends.get(frontend);
                before.as_ref().is_some_and(|before| {
                    before.row.affinity.is_some()
                        && now.is_none_or(|now| {
                            now.row.affinity.is_none() || now.row.outside != before.row.outside
                        })
                })
            })
            .map(|(frontend, _)| *frontend)
            .collect();
        state::forget_affinities(self.nftables.get_mut(), &forgotten)
    }

    /// Ranges as they are to be.
    fn write_ranges(&mut self, changes: &mut Changes) -> Vec<SetOf> {
        let mut changed = Vec::new();
        for family in FAMILIES {
            for set in ranges::SETS {
                let after = ranges::flatten(family, &self.ranges, set);
                let before = self.intervals.entry((set, family)).or_default();
                if *before != after {
                    changes.replace_ranges((set, family), before, &after);
                    *before = after;
                    changed.push((set, family));
                }
            }
        }
        changed
    }
}

impl Datapath for NftEngine {
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        if self.takeover_pending {
            // The audit gets everything.
            return Ok(());
        }
        if !change.ranges.is_empty() {
            for (range, kind) in &change.ranges {
                match kind {
                    Some(kind) => drop(self.ranges.insert(*range, *kind)),
                    None => drop(self.ranges.remove(range)),
                }
            }
            let mut changes = Changes::default();
            self.write_ranges(&mut changes);
            if let Err(error) = self.commit(&mut changes) {
                self.read_back()?;
                return Err(error);
            }
        }
        self.apply_policies(&change.policy)?;
        let mut rows = Vec::with_capacity(change.frontends.len());
        for (frontend, row) in &change.frontends {
            if self.is_host_port(frontend) {
                match row {
                    Some(row) => drop(self.hidden.insert(*frontend, row.clone())),
                    None => drop(self.hidden.remove(frontend)),
                }
                continue;
            }
            rows.push((*frontend, row.clone().map(|row| (row, false))));
        }
        self.write(rows).map(drop)
    }

    /// Packets take the kernel's own routes.
    fn apply_routes(&mut self, routes: &[ResolvedRoute]) -> Result<(), Error> {
        self.segments.take(routes);
        if self.takeover_pending {
            return Ok(());
        }
        let mut changes = Changes::default();
        for family in FAMILIES {
            self.segments.write(&mut changes, family);
        }
        if let Err(error) = self.commit(&mut changes) {
            self.read_back()?;
            return Err(error);
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        pods::add(self, pod)
    }

    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        pods::remove(self, pod)
    }

    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        pods::check(self, pod)
    }

    /// The table sees all interfaces.
    fn attach_uplink(&mut self, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn audit(&mut self, desired: &Tables, pods: &[LocalPod]) -> Result<Drift, Error> {
        self.gives_way = false;
        audit::audit(self, desired, pods)
    }

    fn status(&self) -> EngineStatus {
        let count = |n: usize| n as u64;
        let backends: usize = self.frontends.values().map(|p| p.inside.len()).sum();
        // Without an answer nobody would see the rest, either.
        let spoofed = sources::dropped(&mut self.nftables.borrow_mut()).unwrap_or_default();
        let held_back = pressure::dropped(&mut self.nftables.borrow_mut()).unwrap_or_default();
        let by_link = pressure::dropped_by_link(&mut self.nftables.borrow_mut());
        let by_link = by_link.unwrap_or_default();
        let mut conntrack = self.conntrack.borrow_mut();
        let counters = conntrack.counters().unwrap_or_default();
        let connections = conntrack.size().ok();
        let connections = connections.map(|size| {
            let limit = size.limit.unwrap_or(u32::MAX.into());
            ("connections", size.connections, limit)
        });
        let policies = self.policies.rows();
        let policies = policies.map(|(name, rows)| (name, count(rows), u32::MAX.into()));
        EngineStatus {
            mode: "nftables",
            tables: vec![
                ("endpoints", count(self.addresses.len()), u32::MAX.into()),
                ("frontends", count(self.frontends.len()), u32::MAX.into()),
                ("backends", count(backends), u32::MAX.into()),
                ("classes", count(self.classes.len()), u32::MAX.into()),
            ]
            .into_iter()
            .chain(policies)
            .chain(connections)
            .collect(),
            // The last three are connection tracking's, of all packets of the node.
            drops: vec![
                ("spoofed", spoofed),
                ("connection_share", held_back),
                ("connections_full", counters.full),
                ("connections_clashed", counters.clashed),
                ("connections_evicted", counters.evicted),
            ],
            crowding: self
                .pods
                .values()
                .filter_map(|pod| Some((pod.pod.clone(), *by_link.get(&pod.host_ifindex)?)))
                .collect(),
            adopted: self.adopted,
        }
    }

    fn services(&self) -> Result<Vec<FrontendState>, Error> {
        state::services(&mut self.nftables.borrow_mut())
    }

    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error> {
        let pods = self.addresses.keys().copied().collect();
        let mut flows = flows::list(&mut self.conntrack.borrow_mut(), &self.frontends, &pods)?;
        // Those of the node's own are not handed over: see `rest`.
        flows.retain(|flow| !self.config.node_addresses.contains(&flow.client.ip()));
        Ok(flows)
    }

    fn take_flows(&mut self, taken: &[TranslatedFlow]) -> Result<(), Error> {
        self.taken.take(self.conntrack.get_mut(), taken)
    }

    fn set_policy_settings(&mut self, settings: PolicySettings) -> Result<(), Error> {
        self.policies.settings = settings;
        if self.takeover_pending {
            return Ok(());
        }
        let mut changes = Changes::default();
        changes.replace_chain(policy::denied(settings.deny));
        self.commit(&mut changes)
    }

    fn policies(&self) -> Result<PolicyTables, Error> {
        let raw = readback::raw(&mut self.nftables.borrow_mut())?;
        Ok(self.policies.read(&raw))
    }

    fn denials(&self) -> Result<Denials, Error> {
        policy::denials(&mut self.nftables.borrow_mut())
    }

    fn take_connections(&mut self, connections: &[Connection]) -> Result<(), Error> {
        flows::take_plain(self.conntrack.get_mut(), connections)
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&mut self.conntrack.borrow_mut(), &self.addresses, false)
    }

    fn observed(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&mut self.conntrack.borrow_mut(), &self.addresses, true)
    }

    fn retire(&mut self) -> Result<(), Error> {
        // The other engine meets packets before this one does, but for those that
        // were under way.
        self.gives_way = true;
        crate::grace::let_packets_pass()
    }

    fn dismantle(mut self: Box<Self>) -> Result<(), Error> {
        drop(self.valve.take());
        if self.gives_way {
            rest::leave(self.nftables.get_mut())?;
        } else {
            rest::take_away(self.nftables.get_mut())?;
        }
        let there = self.nftables.get_mut().table(TABLE).map_err(refused)?;
        if there.is_none() {
            return Ok(());
        }
        let (gives_way, node_addresses) = (self.gives_way, &self.config.node_addresses);
        let flows = flows::connections(
            self.conntrack.get_mut(),
            &self.frontends,
            &self.addresses.keys().copied().collect(),
            |connection| gives_way && rest::is_own(node_addresses, connection),
        );
        let mut batch = ripstop_netlink::nftables::Batch::new(TABLE);
        batch.delete_table();
        let deleted = self.nftables.get_mut().commit(&batch).map_err(refused);
        let localnet = if self.localnet_was_off {
            self.set_localnet(false).map(drop)
        } else {
            Ok(())
        };
        // Nobody would translate them any more.
        let forgotten = flows.and_then(|mut flows| {
            if self.gives_way {
                let left = rest::Left::now(&self.config.node_addresses)?;
                flows.retain(|flow| !left.contains(flow));
            }
            let conntrack = self.conntrack.get_mut();
            conntrack.delete(&flows).map_err(refused)
        });
        deleted.and(localnet).and(forgotten)
    }
}

fn unsupported(error: ripstop_netlink::Error) -> Error {
    Error::Unsupported {
        reason: error.to_string(),
    }
}

pub(crate) fn refused(error: ripstop_netlink::Error) -> Error {
    match error {
        ripstop_netlink::Error::Refused {
            operation, source, ..
        } => Error::Kernel { operation, source },
        other => Error::Kernel {
            operation: "netlink".into(),
            source: io::Error::other(other),
        },
    }
}
