//! From the programs and tables of another version to those of this one, while
//! packets flow.
//!
//! Both are there for a moment. Ours are put behind the others, and get what
//! those leave; then the others are told to leave every flow and connection that
//! they do not know. From that moment on nothing begins that only they know, so
//! what they know can be copied, and they can go. If anything fails before that
//! moment, all is as it was.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use ripstop_abi::names;
use ripstop_netlink::Netlink;
use ripstop_netlink::traffic::{self, Hook, Place};

use super::config::Limits;
use super::links::{self, Cgroup, HOOKS};
use super::maps::Maps;
use super::old::{Carried, OF_FLOWS, OF_POLICIES, OF_SOCKETS, OldTables};
use super::pins::Pins;
use super::programs::{self, FROM_POD, FROM_POD_PORTS, PACKET_HOOKS, Programs, SOCKET_HOOKS};
use super::{retire, sys};
use crate::Error;
use crate::grace::let_packets_pass;

/// Pin that is there while programs of two versions are attached.
const UNDER_WAY: &str = "upgrade";

/// What is needed on both sides.
pub(crate) struct Upgrade<'e> {
    pub(crate) pins: &'e Pins,
    pub(crate) cgroup: &'e Cgroup,
    pub(crate) netlink: &'e mut Netlink,
    pub(crate) programs: &'e Programs,
    pub(crate) maps: &'e mut Maps,
    pub(crate) limits: &'e Limits,
}

/// A program of the other version at its place, and ours for there.
struct Successor {
    ifindex: u32,
    hook: Hook,
    name: &'static str,
}

impl Upgrade<'_> {
    /// Ours take over from those of the other version.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn carry_out(&mut self, old: &OldTables) -> Result<(), Error> {
        let mut carried = Carried::default();
        let successors = self.successors()?;
        // With what was remembered until now: ours do not choose ports that flows
        // have, and know whom they see an answer to.
        self.carry(old, &mut carried)?;
        self.pins.put(UNDER_WAY, self.maps.get(names::WORK))?;
        let mut told = old.decide_alone()?;
        let links = self.attach_second(&successors).inspect_err(|_| {
            // Those of the other version have not noticed anything.
            if let Err(error) = tidy(self.pins, self.netlink) {
                tracing::warn!(%error, "programs that were to take over stay attached");
            }
        })?;
        // And what began while that was done.
        self.carry(old, &mut carried)?;
        // Connections first: whose answer goes to ours because they may lead it
        // has to be known there.
        told &= old.retire_policies()?;
        let_packets_pass()?;
        old.carry_again(&OF_POLICIES, self.maps, self.limits, &mut carried)?;
        told &= old.retire_flows()?;
        if !told {
            tracing::warn!(
                "the programs of the other version cannot be told to leave what is new: \
                 flows that begin right now may be lost"
            );
        }
        // Who leads sockets first: rows of the other version are complete then.
        links::sockets_that_lead(self.pins, self.programs, self.cgroup)?;
        let_packets_pass()?;
        old.carry_again(&OF_SOCKETS, self.maps, self.limits, &mut carried)?;
        self.replace_links(links)?;
        old.carry_again(&OF_FLOWS, self.maps, self.limits, &mut carried)?;
        self.note_translated()?;
        for Successor {
            ifindex,
            hook,
            name,
        } in successors
        {
            links::put(self.netlink, self.programs, name, ifindex, hook)?;
        }
        self.maps.pin(self.pins)?;
        self.programs.pin(self.pins)?;
        tidy(self.pins, self.netlink)
    }

    fn carry(&self, old: &OldTables, carried: &mut Carried) -> Result<(), Error> {
        for remembered in [&OF_FLOWS[..], &OF_SOCKETS, &OF_POLICIES] {
            old.carry_again(remembered, self.maps, self.limits, carried)?;
        }
        Ok(())
    }

    /// The other version's programs on interfaces, by their pins.
    fn successors(&mut self) -> Result<Vec<Successor>, Error> {
        let mut old = Vec::new();
        for name in PACKET_HOOKS.into_iter().chain([FROM_POD_PORTS]) {
            if let Some(program) = self.pins.get(&programs::pin(name))? {
                let info = sys::prog_info(program.as_fd()).map_err(|source| Error::Kernel {
                    operation: format!("look at the other version's program {name}"),
                    source,
                })?;
                old.push((info.id, name));
            }
        }
        let mut found = Vec::new();
        for link in self.netlink.links().map_err(links::failed)? {
            for hook in HOOKS {
                let program = self.netlink.program(link.index, hook);
                let program = program.map_err(links::failed)?;
                if let Some((_, name)) = old.iter().find(|(id, _)| Some(*id) == program) {
                    let ifindex = link.index;
                    let name = if *name == FROM_POD_PORTS {
                        self.note_ports(ifindex)?;
                        FROM_POD
                    } else {
                        name
                    };
                    found.push(Successor {
                        ifindex,
                        hook,
                        name,
                    });
                }
            }
        }
        Ok(found)
    }

    /// The pod behind this link has host ports, for which the other version had a
    /// program of its own.
    fn note_ports(&mut self, ifindex: u32) -> Result<(), Error> {
        let endpoints = &mut self.maps.endpoints;
        let rows = endpoints.rows().iter();
        let of_pod = rows.filter(|(_, endpoint)| endpoint.ifindex == ifindex);
        for address in of_pod.map(|(address, _)| *address).collect::<Vec<_>>() {
            endpoints.change(&address, |mut endpoint| {
                endpoint.set_renumbered();
                endpoint
            })?;
        }
        Ok(())
    }

    /// Ours behind the others, on interfaces, and on the cgroup those that tell
    /// sockets who answers. The links of the latter end with their descriptors.
    fn attach_second(
        &mut self,
        successors: &[Successor],
    ) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
        for Successor {
            ifindex,
            hook,
            name,
        } in successors
        {
            let program = self.programs.get(name);
            let shown = format!("ripstop {name}");
            let attach =
                traffic::attach_at(*ifindex, *hook, Place::Second, program.as_fd(), &shown);
            self.netlink.execute([attach]).map_err(links::failed)?;
        }
        let link = |(name, attach)| {
            let link = links::create(self.programs, self.cgroup, name, attach)?;
            Ok((name, link))
        };
        let telling = SOCKET_HOOKS.into_iter();
        let telling = telling.filter(|(name, _)| !links::leads(name));
        telling.map(link).collect()
    }

    /// Takes away the other version's program where ours is there besides.
    fn replace_links(&self, links: Vec<(&'static str, OwnedFd)>) -> Result<(), Error> {
        for (name, link) in links {
            let pin = links::pin(name);
            if let Some(old) = self.pins.get(&pin)? {
                sys::link_detach(old.as_fd()).map_err(|source| Error::Kernel {
                    operation: format!("detach the other version's program {name}"),
                    source,
                })?;
            }
            self.pins.put(&pin, link)?;
        }
        Ok(())
    }

    /// What comes to who has flows may be an answer.
    fn note_translated(&mut self) -> Result<(), Error> {
        let mut clients = BTreeSet::new();
        self.maps.flows.each_batch(4096, |rows| {
            clients.extend(rows.iter().map(|(key, _)| key.source));
            Ok(())
        })?;
        for client in clients {
            self.maps.endpoints.change(&client, |mut endpoint| {
                retire::may_be_in_flows(&mut endpoint);
                endpoint
            })?;
        }
        retire::note_translated(self.maps)
    }
}

/// Takes away what a change of versions left that did not come to its end.
///
/// # Errors
/// What the kernel said.
pub(crate) fn tidy(pins: &Pins, netlink: &mut Netlink) -> Result<(), Error> {
    if pins.get(UNDER_WAY)?.is_none() {
        return Ok(());
    }
    for link in netlink.links().map_err(links::failed)? {
        for hook in HOOKS {
            let there = netlink.program_at(link.index, hook, Place::Second);
            if there.map_err(links::failed)?.is_some() {
                let detach = traffic::detach_at(link.index, hook, Place::Second);
                netlink
                    .execute([detach.if_exists()])
                    .map_err(links::failed)?;
            }
        }
    }
    pins.remove(UNDER_WAY)
}
