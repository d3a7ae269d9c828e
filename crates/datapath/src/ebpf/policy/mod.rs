//! Policies in the kernel: rows written in an order in which each packet gets
//! the verdict from before a change or the one from after.

mod audit;
mod classes;
mod collector;
mod denials;
pub(crate) mod maps;
mod ports;
mod readback;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ripstop_abi::{
    Address, CLASS_V4, ClassKey, Endpoint, NO_POLICY, POLICY_ALONE, POLICY_OBSERVES,
    POLICY_REJECTS, POLICY_RETIRED, PolicyPod, PolicyState,
};
use ripstop_plan::policy::{ClassId, PolicyChange, PolicyId, PortTable, RuleRow, kernel};

pub(crate) use audit::audit;
pub(crate) use classes::{FIRST, audit_classes, goes_in_parts, verify_classes};
pub(crate) use collector::collect;
pub(crate) use denials::denials;
pub(crate) use readback::{connections, policies, policies_but_classes, take_connections};

use super::maps::Maps;
use super::readback::{Scope, now};
use super::table::Mirror;
use crate::engine::{Deny, Error, PolicySettings};
use maps::PolicyMaps;
use ports::Ports;

/// Rows that every table has.
const BASES: [(ClassKey, u64); 1] = [(ClassKey::ALL_V4, CLASS_V4)];

/// What is known of the policies' rows beside the tables.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    ports: Ports,
    state: PolicyState,
    observe: bool,
    /// Sides of which a row did not fit: pods that have one are closed.
    incomplete: BTreeSet<u64>,
    /// A class did not fit: pods with any side are closed.
    lacks_classes: bool,
    /// The tables are new, and pods may have connections.
    nothing_is_known: bool,
}

/// First error of many.
fn note<T>(result: &mut Result<(), Error>, outcome: Result<T, Error>) -> Option<T> {
    match outcome {
        Ok(done) => Some(done),
        Err(error) => {
            if result.is_ok() {
                *result = Err(error);
            }
            None
        }
    }
}

impl Policies {
    /// Of tables that are new, while pods may be there already.
    pub(crate) fn of_new_tables() -> Self {
        Self {
            nothing_is_known: true,
            ..Self::default()
        }
    }

    /// As the kernel has them, under a new generation: what was said under
    /// others may be of rows that an agent was in the middle of writing.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn read(maps: &mut PolicyMaps, before: &Self, scope: Scope) -> Result<Self, Error> {
        maps.read(scope)?;
        let mut policies = Self {
            ports: Ports::read(&mut maps.ports, maps.pairs.rows().values())?,
            state: maps.state.get(&0)?.unwrap_or_default(),
            observe: before.observe,
            nothing_is_known: before.nothing_is_known,
            ..Self::default()
        };
        for (key, class) in BASES {
            maps.classes
                .put(key, class, || "class of all IPv4 addresses".into())?;
        }
        policies.state.flags &= !(POLICY_RETIRED | POLICY_ALONE);
        policies.state.share = collector::share(&maps.connections);
        policies.next_generation(maps)?;
        Ok(policies)
    }

    /// Outcomes that connections have kept are asked for anew.
    fn next_generation(&mut self, maps: &PolicyMaps) -> Result<(), Error> {
        // Zero is of connections that have none yet.
        self.state.generation = self.state.generation.wrapping_add(1).max(1);
        maps.state.put(&0, &self.state, || "generation".into())
    }

    /// Whether these rows may be more than the tables take, beside those that are
    /// there.
    pub(crate) fn may_not_fit<'r>(
        maps: &PolicyMaps,
        rules: impl Iterator<Item = &'r (PolicyId, ClassId)>,
        ports: impl Iterator<Item = &'r PortTable>,
    ) -> bool {
        let pairs = maps.pairs.rows();
        let new = rules.filter(|pair| !pairs.contains_key(&kernel::pair_key(**pair)));
        // Each node has up to eight ranges, or as many nodes below it.
        let nodes: usize = ports.map(|table| table.0.len() / 4 + 2).sum();
        let full = |(_, rows, limit): (_, u64, u64), more: usize| rows + more as u64 > limit;
        full(maps.pairs.usage(), new.count()) || full(maps.ports.usage(), nodes)
    }

    /// Whether packets of a pod's address are looked at.
    pub(crate) fn is_tracked(&self, maps: &PolicyMaps, address: &Address) -> bool {
        let open = PolicyPod::new(NO_POLICY, NO_POLICY);
        self.observe || maps.pods.rows().get(address) != Some(&open)
    }

    /// Writes the rows that changed.
    ///
    /// # Errors
    /// The first; the other rows are in place, and pods that lack one are closed.
    pub(crate) fn apply(&mut self, maps: &mut Maps, change: &PolicyChange) -> Result<(), Error> {
        if change.is_empty() {
            return Ok(());
        }
        self.ports.settle();
        let mut result = Ok(());
        let tables = &mut maps.policy;
        for (id, table) in &change.ports {
            if let Some(table) = table {
                // Who lacks it is found with the rules.
                note(&mut result, self.ports.put(&mut tables.ports, *id, table));
            }
        }
        for (pair, row) in &change.rules {
            if let Some(row) = row {
                let outcome = self.put_rule(tables, *pair, row);
                note(&mut result, outcome);
            }
        }
        self.put_classes(tables, change, &mut result);
        for (address, row) in &change.pods {
            let key = Address::from(*address);
            let row = row.map(kernel::pod).filter(|row| !self.lacks(row));
            let row = row.map(|row| self.dated(maps, key, row));
            note(&mut result, put_pod(&mut maps.policy.pods, key, row));
            note(&mut result, self.track(maps, key));
        }
        note(&mut result, self.close_incomplete(maps));
        let tables = &mut maps.policy;
        note(&mut result, self.next_generation(tables));
        for (pair, row) in &change.rules {
            if row.is_none() {
                note(&mut result, tables.pairs.remove(&kernel::pair_key(*pair)));
            }
        }
        for (id, table) in &change.ports {
            if table.is_none() {
                note(&mut result, self.ports.remove(&mut tables.ports, *id));
            }
        }
        result
    }

    /// The row with when policies came to be about the pod.
    fn dated(&self, maps: &Maps, address: Address, row: PolicyPod) -> PolicyPod {
        let endpoint = maps.endpoints.rows().get(&address);
        let was_open = endpoint.is_some_and(|endpoint| !endpoint.is_tracked());
        if was_open || self.nothing_is_known {
            return row.since(now().max(1));
        }
        match maps.policy.pods.rows().get(&address) {
            Some(before) => row.as_long_as(before),
            None => row,
        }
    }

    /// True if it was not there, or another one.
    fn put_rule(
        &mut self,
        maps: &mut PolicyMaps,
        pair: (PolicyId, ClassId),
        row: &RuleRow,
    ) -> Result<bool, Error> {
        let missing = Cell::new(false);
        let row = kernel::pair_row(row, |id| {
            let root = self.ports.root(id);
            missing.set(missing.get() || root.is_none());
            root.unwrap_or_default()
        });
        let name = || format!("rule of {:?} for {:?}", pair.0, pair.1);
        let written = match missing.get() {
            false => maps.pairs.put(kernel::pair_key(pair), row, name),
            true => Err(Error::TableFull {
                table: ripstop_abi::policy_names::PORTS,
                limit: maps.ports.usage().2,
                row: name(),
            }),
        };
        if written.is_err() {
            self.incomplete.insert(pair.0.number());
        }
        written
    }

    /// Those that are set, the longest first; then those that go, the shortest
    /// first.
    fn put_classes(
        &mut self,
        maps: &mut PolicyMaps,
        change: &PolicyChange,
        result: &mut Result<(), Error>,
    ) {
        let mut classes: Vec<_> = change
            .classes
            .iter()
            .map(|(net, class)| (kernel::class_key(*net), *class, net))
            .collect();
        classes.sort_by_key(|(key, ..)| key.prefix_len);
        for (key, class, net) in classes.iter().rev() {
            if let Some(class) = class {
                let outcome = maps
                    .classes
                    .put(*key, class.number(), || format!("class of {net}"));
                self.lacks_classes |= outcome.is_err();
                note(result, outcome);
            }
        }
        for (key, class, _) in &classes {
            if class.is_none() {
                let base = BASES.iter().find(|(base, _)| base == key);
                let outcome = match base {
                    Some((_, base)) => maps.classes.put(*key, *base, String::new),
                    None => maps.classes.remove(key),
                };
                note(result, outcome);
            }
        }
    }

    /// Whether rows are missing that a pod with these sides needs.
    fn lacks(&self, row: &PolicyPod) -> bool {
        [PolicyPod::INGRESS, PolicyPod::EGRESS]
            .into_iter()
            .any(|side| {
                let side = row.side(side);
                side != NO_POLICY && (self.lacks_classes || self.incomplete.contains(&side))
            })
    }

    /// Takes away the rows of pods that lack others.
    fn close_incomplete(&mut self, maps: &mut Maps) -> Result<(), Error> {
        if self.incomplete.is_empty() && !self.lacks_classes {
            return Ok(());
        }
        let rows = maps.policy.pods.rows().iter();
        let open = rows.filter(|(_, row)| self.lacks(row));
        let open: Vec<Address> = open.map(|(address, _)| *address).collect();
        let mut result = Ok(());
        for address in open {
            tracing::warn!(pod = %IpAddr::from(address), "closed: its policies did not fit");
            note(&mut result, maps.policy.pods.remove(&address));
            note(&mut result, self.track(maps, address));
        }
        result
    }

    /// Says in the endpoint whether its packets are looked at. True if it said
    /// otherwise.
    fn track(&self, maps: &mut Maps, address: Address) -> Result<bool, Error> {
        let tracked = self.is_tracked(&maps.policy, &address);
        let change = |endpoint: Endpoint| endpoint.with_tracked(tracked);
        match maps.endpoints.rows().get(&address) {
            Some(endpoint) if endpoint.is_tracked() != tracked => {
                maps.endpoints.change(&address, change)
            }
            _ => Ok(false),
        }
    }

    /// From here on connections that are not known are left to who comes after.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    pub(crate) fn retire(&self, maps: &Maps) -> Result<(), Error> {
        let state = PolicyState {
            flags: self.state.flags | POLICY_RETIRED,
            ..self.state
        };
        maps.policy.state.put(&0, &state, || "settings".into())
    }

    /// # Errors
    /// If the kernel cannot be told.
    pub(crate) fn set(&mut self, maps: &mut Maps, settings: PolicySettings) -> Result<(), Error> {
        self.observe = settings.observe;
        let flags = [
            (settings.deny == Deny::Reject, POLICY_REJECTS),
            (settings.observe, POLICY_OBSERVES),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        self.state.flags = set.map(|(_, flag)| flag).sum();
        maps.policy
            .state
            .put(&0, &self.state, || "settings".into())?;
        let addresses: Vec<Address> = maps.endpoints.rows().keys().copied().collect();
        for address in addresses {
            self.track(maps, address)?;
        }
        Ok(())
    }
}

/// `None` closes the pod. True if the row was another one.
fn put_pod(
    pods: &mut Mirror<Address, PolicyPod>,
    address: Address,
    row: Option<PolicyPod>,
) -> Result<bool, Error> {
    let name = || format!("policies of pod {}", IpAddr::from(address));
    match row {
        Some(row) => pods.put(address, row, name),
        None => pods.remove(&address),
    }
}
