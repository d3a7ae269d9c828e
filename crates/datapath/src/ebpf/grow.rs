//! Tables that are full get more room while packets flow: copies of them, with
//! programs of their own, take the places of those that are there.

use ripstop_abi::SCHEMA;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};

use super::frontends::Plan;
use super::maps::State;
use super::policy::Policies;
use super::programs::Programs;
use super::start::{Takeover, constants};
use super::{EbpfEngine, links};
use crate::Error;

/// What was written, and the first error.
pub(crate) type Written = (Vec<String>, Result<(), Error>);

impl EbpfEngine {
    /// Carries out what was planned for frontends. Tables that have no room for it
    /// and can grow do so before.
    pub(crate) fn write_growing(&mut self, plan: Plan) -> Written {
        let grown = if self.frontends.have_room(&self.maps, &plan) {
            Ok(true)
        } else {
            self.grow()
        };
        let (done, result) = self.frontends.carry_out(&self.maps, plan);
        // Where there are no larger tables, what did not fit says most.
        (done, result.and(grown.map(drop)))
    }

    /// Before rows of policies are written: those that do not fit close pods.
    pub(crate) fn grow_for_change(&mut self, change: &Change) -> Result<(), Error> {
        let (rules, ports) = (&change.policy.rules, &change.policy.ports);
        let set = rules
            .iter()
            .filter_map(|(pair, row)| row.as_ref().map(|_| pair));
        let ports = ports.values().flatten().map(AsRef::as_ref);
        if Policies::may_not_fit(&self.maps.policy, set, ports) {
            self.grow()?;
        }
        Ok(())
    }

    /// Likewise.
    pub(crate) fn grow_for_tables(&mut self, desired: &Tables) -> Result<(), Error> {
        let PolicyTables { rules, ports, .. } = &desired.policy;
        let ports = ports.values().map(AsRef::as_ref);
        if Policies::may_not_fit(&self.maps.policy, rules.keys(), ports) {
            self.grow()?;
        }
        Ok(())
    }

    /// Gives all tables the rows that they may have. False if they have them.
    ///
    /// What is counted by backend and frontend until the last program is in its
    /// place may be lost; nothing else is that programs write.
    fn grow(&mut self) -> Result<bool, Error> {
        let Some(maps) = self.maps.grown(&self.config.limits)? else {
            return Ok(false);
        };
        let constants = constants()?;
        let programs = Programs::load(&maps, &constants)?;
        if let Takeover::Of(_) = self.takeover {
            // What is pinned and attached is another version's.
            (self.maps, self.programs) = (maps, programs);
            return Ok(true);
        }
        maps.pin(&self.pins)?;
        programs.pin(&self.pins)?;
        // Before this all of ours are attached by the first audit.
        if let Takeover::None = self.takeover {
            links::replace(&mut self.netlink, &self.programs, &programs)?;
            if !self.handing_over {
                links::sockets(&self.pins, &programs, &self.cgroup)?;
            }
        }
        self.maps = maps;
        self.programs = programs;
        let state = State {
            schema: SCHEMA.into(),
            digest: Programs::digest(&constants),
        };
        state.write(&self.pins)?;
        tracing::info!("tables of the datapath have grown: not all rows had room");
        Ok(true)
    }
}
