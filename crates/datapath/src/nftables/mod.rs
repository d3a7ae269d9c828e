//! The nftables engine: services by the kernel's NAT, packets by its routing.
//!
//! One table, `inet ripstop`, that no one else's rules know of. A new
//! connection looks its frontend up, then the frontend's class, then a slot:
//! three lookups, however many services there are. Everything else of the
//! connection is connection tracking.
//!
//! The table stays while no agent runs, and the next one adopts it.

mod audit;
mod choose;
mod class;
mod commit;
mod datapath;
mod flows;
mod keys;
mod known;
mod parts;
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
use ripstop_plan::{Frontend, FrontendRow, Range};

use crate::engine::Error;
use crate::regular::Regular;
use class::Class;
use known::Known;
use policy::Policies;
use ranges::Interval;
use readback::Scope;
use rows::{Differing, Placed};
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
    known: Known,
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
            known: Known::default(),
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
                engine.read_back(Scope::All)?;
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

    /// What is in the kernel becomes what counts as applied; of policies' rows that
    /// is known otherwise.
    fn read_back(&mut self, scope: Scope) -> Result<readback::Raw, Error> {
        let raw = readback::raw(self.nftables.get_mut(), scope)?;
        self.frontends = readback::placed(&readback::frontends(&raw), &mut self.known.tables);
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
            let after = row.map(|(row, port)| Placed::new(row, port, before, &mut self.known));
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
        let both = before.as_ref().zip(after.as_ref());
        let differing = both.map(|(before, after)| Differing::of(before, after, &mut self.known));
        let elements = |placed: Option<&Placed>, beside: Option<&Placed>| {
            let beside = beside.zip(differing.as_ref());
            placed.map_or(Vec::new(), |placed| {
                placed.elements_beside(&frontend, beside)
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
            let read = self.read_back(Scope::ButBlocks).map(drop);
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
