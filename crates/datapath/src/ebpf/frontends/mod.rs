//! Frontends and their backends in the kernel.
//!
//! A frontend has a set: rows for its backends under numbers that are never
//! used again, and slots that name those. A change writes the rows that differ,
//! so that one backend of ten thousand costs as much as one of two.

mod plan;
mod read;
mod room;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ripstop_abi::{Backend, ServiceAddress};

use super::maps::Maps;
use super::table::Table;
use crate::Error;
use plan::{Known, Planned};
pub(crate) use read::{Counts, states};
use room::Room;
use row::Row;
pub(crate) use row::Wanted;

/// What is in the tables of frontends and all that they lead to.
#[derive(Debug, Default)]
pub(crate) struct Frontends {
    rows: BTreeMap<ServiceAddress, Row>,
    /// Services behind a port of the node that a pod has: theirs when it goes.
    behind: BTreeMap<ServiceAddress, Wanted>,
    last_set: u32,
    wrapped: bool,
    /// What they take of the tables.
    room: Room,
    known: Known,
    /// A backend that datagrams were led to has gone: see
    /// [`Frontends::take_datagrams_stranded`].
    datagrams_stranded: bool,
}

/// What to do so that frontends are as they should be.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    changed: Vec<Planned>,
    removed: Vec<ServiceAddress>,
    /// What it takes, until that which goes has gone.
    room: Room,
}

impl Frontends {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn backend_count(&self) -> u64 {
        self.room.backends
    }

    /// The row of that address, if it is as it should be.
    pub(crate) fn get(&self, address: &ServiceAddress) -> Option<&Wanted> {
        self.rows.get(address).map(|row| &row.wanted)
    }

    /// True if the kernel has the frontend's row, and it is that of this one.
    pub(crate) fn is_there(
        &self,
        maps: &Maps,
        address: &ServiceAddress,
        wanted: &Wanted,
    ) -> Result<bool, Error> {
        let Some(row) = self.rows.get(address).filter(|row| row.is(wanted)) else {
            return Ok(false);
        };
        let found = maps.frontends.get(address)?;
        Ok(found.is_some_and(|found| found.set() == row.set))
    }

    /// Addresses of the rows with, or without, that flag.
    pub(crate) fn with_flag(&self, flag: u16, set: bool) -> impl Iterator<Item = ServiceAddress> {
        self.rows
            .iter()
            .filter(move |(_, row)| (row.wanted.flags() & flag != 0) == set)
            .map(|(address, _)| *address)
    }

    /// Whether that backend is still one of that frontend's.
    pub(crate) fn leads_to(&self, address: &ServiceAddress, backend: &Backend) -> bool {
        let row = self.rows.get(address);
        row.is_some_and(|row| row.id(backend).is_some())
    }

    /// Whether, since this was asked last, a backend has gone that sockets for
    /// datagrams may be connected to.
    pub(crate) fn take_datagrams_stranded(&mut self) -> bool {
        std::mem::take(&mut self.datagrams_stranded)
    }

    /// Plans that the kernel has these rows of services; `None` removes one. A port
    /// of the node that a pod has stays the pod's.
    pub(crate) fn plan_services(
        &mut self,
        wanted: impl IntoIterator<Item = (ServiceAddress, Option<Wanted>)>,
    ) -> Plan {
        let mut rest = Vec::new();
        for (address, wanted) in wanted {
            let taken = self.rows.get(&address).is_some_and(Row::is_host_port);
            match wanted {
                Some(wanted) if taken => drop(self.behind.insert(address, wanted)),
                None if taken => drop(self.behind.remove(&address)),
                wanted => rest.push((address, wanted)),
            }
        }
        self.plan(rest)
    }

    /// Likewise for the ports of the node that a pod has. A service that had one
    /// gets it back when the pod goes.
    pub(crate) fn plan_host_ports(
        &mut self,
        wanted: impl IntoIterator<Item = (ServiceAddress, Option<Wanted>)>,
    ) -> Plan {
        let mut rows = Vec::new();
        for (address, wanted) in wanted {
            let had = self.rows.get(&address);
            if wanted.is_some()
                && let Some(row) = had.filter(|row| !row.is_host_port())
            {
                self.behind.insert(address, row.wanted.clone());
            }
            let wanted = wanted.or_else(|| self.behind.remove(&address));
            rows.push((address, wanted));
        }
        self.plan(rows)
    }

    fn plan(&mut self, wanted: Vec<(ServiceAddress, Option<Wanted>)>) -> Plan {
        let mut plan = Plan::default();
        for (address, wanted) in wanted {
            let Some(wanted) = wanted else {
                let there = self.rows.contains_key(&address);
                plan.removed.extend(there.then_some(address));
                continue;
            };
            let old = self.rows.get(&address);
            if old.is_some_and(|row| row.is(&wanted)) {
                continue;
            }
            let intact = old.filter(|row| row.intact).cloned();
            let set = intact.as_ref().map(|row| row.set);
            let set = set.unwrap_or_else(|| self.fresh_set());
            let planned = Planned::new(address, intact, wanted, set, &mut self.known);
            plan.room += Room::for_change(&planned, self.rows.get(&address));
            plan.changed.push(planned);
        }
        plan
    }

    /// Whether the tables have room for what was planned last.
    pub(crate) fn have_room(&self, maps: &Maps, plan: &Plan) -> bool {
        let mut needed = self.room;
        needed += plan.room;
        needed.is_in(maps)
    }

    /// Does what was planned last, in this order: new backends; slots that name
    /// them; frontends, each in one step; what is no longer used.
    ///
    /// Gives what was written or removed. After an error all other rows are in
    /// place, and those that did not fit are as they were.
    pub(crate) fn carry_out(
        &mut self,
        maps: &Maps,
        plan: Plan,
    ) -> (Vec<String>, Result<(), Error>) {
        let (mut done, mut result) = self.put(maps, plan.changed);
        for address in plan.removed {
            match maps.frontends.remove(&address) {
                Ok(()) => {
                    done.push(format!("frontend {} (removed)", show(&address)));
                    if let Some(row) = self.rows.remove(&address) {
                        self.forget(maps, &address, &row);
                    }
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        (done, result)
    }

    fn put(&mut self, maps: &Maps, mut planned: Vec<Planned>) -> (Vec<String>, Result<(), Error>) {
        let mut refused = BTreeSet::new();
        let mut result = Ok(());
        macro_rules! write {
            ($table:ident, $rows:ident) => {
                let (new, outcome) = put_all(&maps.$table, &planned, &refused, |plan| &plan.$rows);
                refused.extend(new);
                result = result.and(outcome);
            };
        }
        write!(backends, backends);
        for (index, plan) in planned.iter().enumerate() {
            for (key, value) in &plan.sources {
                let row = || format!("source range of {}", show(&plan.address));
                if let Err(error) = maps.sources.put(key, value, row) {
                    refused.insert(index);
                    result = result.and(Err(error));
                }
            }
        }
        write!(slots, slots);
        write!(maglev, maglev);
        // The counters of those that are there go on.
        for plan in planned.iter_mut().filter(|plan| plan.in_place) {
            if let Ok(Some(row)) = maps.frontends.get(&plan.address) {
                plan.frontend[0].1.refused = row.refused;
            }
        }
        write!(frontends, frontend);
        let mut done = Vec::new();
        for (index, plan) in planned.into_iter().enumerate() {
            if refused.contains(&index) {
                plan.undo(maps, &mut self.known);
                continue;
            }
            done.push(format!("frontend {}", show(&plan.address)));
            self.datagrams_stranded |= plan.unused.strands_datagrams(&plan.address);
            plan.unused.remove(maps);
            self.room += Room::of(&plan.row);
            match self.rows.insert(plan.address, plan.row) {
                Some(old) if plan.in_place => self.room -= Room::of(&old),
                Some(old) => self.forget(maps, &plan.address, &old),
                None => {}
            }
        }
        (done, result)
    }

    /// Removes all that a row led to which is no longer there.
    fn forget(&mut self, maps: &Maps, address: &ServiceAddress, row: &Row) {
        let all = plan::everything(row);
        self.datagrams_stranded |= all.strands_datagrams(address);
        self.room -= Room::of(row);
        all.remove(maps);
    }

    /// A number that no row has.
    fn fresh_set(&mut self) -> u32 {
        loop {
            let (next, wrapped) = self.last_set.overflowing_add(1);
            self.wrapped |= wrapped;
            self.last_set = next;
            // After four billion changes numbers come again; zero is none.
            let used = || self.wrapped && self.rows.values().any(|row| row.set == next);
            if next != 0 && !used() {
                return next;
            }
        }
    }
}

/// Writes the rows of all plans that nothing was refused of. Gives the indexes
/// of those that have a row which was refused now.
fn put_all<K: ripstop_abi::TableRow, V: ripstop_abi::TableRow>(
    table: &Table<K, V>,
    planned: &[Planned],
    refused: &BTreeSet<usize>,
    rows_of: impl Fn(&Planned) -> &Vec<(K, V)>,
) -> (Vec<usize>, Result<(), Error>) {
    let mut rows = Vec::new();
    let mut owners = Vec::new();
    let plans = planned.iter().enumerate();
    for (index, plan) in plans.filter(|(index, _)| !refused.contains(index)) {
        let more = rows_of(plan);
        rows.extend_from_slice(more);
        owners.resize(rows.len(), index);
    }
    let describe = |row: usize| show(&planned[owners[row]].address);
    let (refused, result) = table.put_all(&rows, describe);
    (refused.into_iter().map(|row| owners[row]).collect(), result)
}

/// A frontend as people write it.
pub(crate) fn show(address: &ServiceAddress) -> String {
    let socket = SocketAddr::new(IpAddr::from(address.address), address.port.host());
    match address.protocol {
        6 => format!("{socket}/TCP"),
        17 => format!("{socket}/UDP"),
        132 => format!("{socket}/SCTP"),
        other => format!("{socket}/{other}"),
    }
}
