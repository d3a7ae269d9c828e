//! The eBPF engine: services are translated at the socket, packets go from pod
//! to pod past the host's stack.
//!
//! Programs, tables and attachments are pinned, so they work on while no agent
//! runs, and the next one takes them over: the same tables always, the same
//! programs if they are the ones that it would load.

mod apart;
mod audit;
mod config;
mod flows;
mod frontends;
mod grow;
mod layout;
mod links;
mod maglev;
mod maps;
mod old;
#[cfg(test)]
mod packet_tests;
mod pins;
mod pods;
mod policy;
mod preflight;
mod programs;
mod ranges;
mod readback;
mod remove;
mod retire;
mod start;
mod stranded;
mod sys;
mod table;
mod upgrade;
mod uplinks;
mod wanted;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use ripstop_abi::{Route, RouteKey, names};
use ripstop_model::LocalPod;
use ripstop_netlink::Netlink;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};

pub use config::{Config, Limits};
pub use links::unprepare;
pub use preflight::{Loaded, try_load};
pub use programs::ProgramStats;
pub use remove::{is_attached, remove};

use crate::engine::{
    Datapath, Drift, EngineStatus, Error, NextHop, Part, PolicySettings, ResolvedRoute,
};
use crate::regular::Regular;
use crate::state::{Connection, Denials, FrontendState, TranslatedFlow};
use frontends::Frontends;
use links::Cgroup;
use maps::{Maps, State};
use pins::Pins;
use policy::Policies;
use programs::Programs;
use start::Takeover;
use wanted::{Translation, key};

/// The engine of one node. Dropped, it leaves everything in the kernel.
///
/// Its methods attach to interfaces by index: they are to be called from a
/// thread in the node's network namespace, where it was opened.
#[derive(Debug)]
pub struct EbpfEngine {
    config: Config,
    pins: Pins,
    cgroup: Cgroup,
    netlink: Netlink,
    programs: Programs,
    maps: Maps,
    adopted: bool,
    /// Programs of another version are attached where ours should be, over tables
    /// of another form. Ours take over at once if all that was in those could be
    /// carried over; else with the first audit: before that ours do not have
    /// every service.
    takeover: Takeover,
    state: State,
    /// Flows of another engine are being taken over: pods that come in keep to
    /// the host's stack for what they are in the middle of.
    handing_over: bool,
    frontends: Frontends,
    policies: Policies,
    _collector: Regular,
    _sharing: Regular,
    /// By container id: those that this process knows.
    pods: BTreeMap<String, LocalPod>,
    /// It was said that datagram sockets cannot be disconnected here.
    stranding_said: bool,
}

impl EbpfEngine {
    /// What the kernel knows of the programs.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn program_stats(&self) -> Result<Vec<ProgramStats>, Error> {
        self.programs.stats().map_err(|source| Error::Kernel {
            operation: "read the programs' statistics".into(),
            source,
        })
    }

    /// With which addresses packets leave; gives what was not so.
    fn write_uplinks(&mut self) -> Result<Vec<String>, Error> {
        let (node, uplinks) = (&self.config.node_addresses, &self.config.uplinks);
        uplinks::write(&mut self.netlink, &mut self.maps, node, uplinks)
    }

    /// True if the route was not there, or another one.
    fn write_route(&mut self, route: &ResolvedRoute) -> Result<bool, Error> {
        let key = route_key(&route.prefix);
        // A neighbour of the other family cannot be given to the kernel here;
        // the host's stack has the route.
        match route
            .next_hop
            .filter(|hop| hop.gateway.is_ipv4() == route.prefix.addr().is_ipv4())
        {
            Some(hop) => {
                let NextHop {
                    ifindex,
                    mtu,
                    gateway,
                } = hop;
                let row = Route {
                    ifindex,
                    mtu,
                    gateway: gateway.into(),
                };
                self.maps
                    .routes
                    .put(key, row, || format!("route {}", route.prefix))
            }
            None => self.maps.routes.remove(&key),
        }
    }
}

impl Datapath for EbpfEngine {
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        self.grow_for_change(change)?;
        let mut translation = Translation::default();
        let rows = change.frontends.iter().map(|(frontend, row)| {
            let wanted = row.as_ref().map(|row| translation.row(frontend, row));
            (key(frontend), wanted)
        });
        let plan = self.frontends.plan_services(rows);
        let (_, written) = self.write_growing(plan);
        self.disconnect_stranded_if_any();
        let ranges = ranges::apply(&mut self.maps, &change.ranges);
        let policies = self.policies.apply(&mut self.maps, &change.policy);
        policies.and(written).and(ranges)
    }

    fn apply_routes(&mut self, routes: &[ResolvedRoute]) -> Result<(), Error> {
        let mut result = Ok(());
        for route in routes {
            let outcome = self.write_route(route);
            if result.is_ok() {
                result = outcome.map(drop);
            }
        }
        result
    }

    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        if let Some((holder, port)) = self.port_holder(pod) {
            return Err(Error::PortTaken {
                port: frontends::show(&port),
                pod: pod.pod.clone(),
                holder: holder.pod.clone(),
            });
        }
        if let Err(error) = self.write_pod(pod) {
            if let Err(also) = self.erase_pod(pod) {
                tracing::warn!(%also, pod = %pod.pod, "rows of a pod that was not added stay");
            }
            return Err(error);
        }
        self.pods.insert(pod.container_id.clone(), pod.clone());
        Ok(())
    }

    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        self.pods.remove(&pod.container_id);
        self.erase_pod(pod)
    }

    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        self.fault_of_pod(pod)
    }

    fn attach_uplink(&mut self, ifindex: u32) -> Result<(), Error> {
        if !self.config.uplinks.contains(&ifindex) {
            self.config.uplinks.push(ifindex);
        }
        if let Takeover::None = self.takeover {
            links::uplink(&mut self.netlink, &self.programs, ifindex)?;
        }
        self.write_uplinks().map(drop)
    }

    fn audit(&mut self, desired: &Tables, pods: &[LocalPod]) -> Result<Drift, Error> {
        audit::audit(self, desired, pods, readback::Scope::All)
    }

    fn audit_part(
        &mut self,
        desired: &Tables,
        pods: &[LocalPod],
        part: Part,
    ) -> Result<(Drift, Option<Part>), Error> {
        audit::audit_part(self, desired, pods, part)
    }

    fn verify_part(
        &self,
        desired: &Tables,
        part: Part,
    ) -> Result<(Vec<String>, Option<Part>), Error> {
        audit::verify_part(self, desired, part)
    }

    fn status(&self) -> EngineStatus {
        let (maps, frontends) = (&self.maps, &self.frontends);
        // Of tables that grow: what they can grow to.
        let limits = &self.config.limits;
        let most = |(name, rows, _): (_, u64, u64), limit: u32| (name, rows, limit.into());
        EngineStatus {
            mode: "ebpf",
            tables: vec![
                maps.endpoints.usage(),
                (
                    names::FRONTENDS,
                    frontends.len() as u64,
                    limits.frontends.into(),
                ),
                (
                    names::BACKENDS,
                    frontends.backend_count(),
                    limits.backends.into(),
                ),
                (names::FLOWS, flows::rows(maps), maps.flows.limit()),
                maps.routes.usage(),
                maps.ranges.usage(),
                maps.policy.pods.usage(),
                maps.policy.classes.usage(),
                most(maps.policy.pairs.usage(), limits.policy_pairs),
                most(maps.policy.ports.usage(), limits.policy_ports),
            ],
            drops: maps.drops().unwrap_or_else(|error| {
                tracing::warn!(%error, "the drop counters cannot be read");
                Vec::new()
            }),
            crowding: Vec::new(),
            adopted: self.adopted,
        }
    }

    fn services(&self) -> Result<Vec<FrontendState>, Error> {
        readback::services(&self.maps)
    }

    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error> {
        readback::flows(&self.maps)
    }

    fn take_flows(&mut self, flows: &[TranslatedFlow]) -> Result<(), Error> {
        // The first time before the pods come in, the second time after.
        self.handing_over = !self.handing_over;
        if self.handing_over {
            // No flow is led before all programs are there: connection tracking
            // loses those of which it sees one direction alone. And a socket that
            // is led begins a connection of which connection tracking, which still
            // is asked about it, may know another one by that name.
            links::release_sockets(&self.pins)?;
            readback::await_flows(&self.maps, &mut self.netlink, flows)?;
            return retire::take_over(&self.maps, true);
        }
        readback::take_flows(&mut self.maps, &mut self.netlink, flows)?;
        retire::take_over(&self.maps, false)?;
        links::sockets(&self.pins, &self.programs, &self.cgroup).map(drop)
    }

    fn share_ports(&mut self, share: bool) -> Result<(), Error> {
        retire::share_ports(&self.maps, share)
    }

    fn retire(&mut self) -> Result<(), Error> {
        self.policies.retire(&self.maps)?;
        retire::retire(&self.maps, &self.pins)
    }

    fn set_policy_settings(&mut self, settings: PolicySettings) -> Result<(), Error> {
        self.policies.set(&mut self.maps, settings)
    }

    fn policies(&self) -> Result<PolicyTables, Error> {
        policy::policies(&self.maps.policy)
    }

    fn denials(&self) -> Result<Denials, Error> {
        policy::denials(&self.maps.policy)
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&self.maps.policy, readback::now(), false)
    }

    fn observed(&self) -> Result<Vec<Connection>, Error> {
        policy::connections(&self.maps.policy, readback::now(), true)
    }

    fn take_connections(&mut self, connections: &[Connection]) -> Result<(), Error> {
        policy::take_connections(&self.maps, connections, readback::now())
    }

    fn dismantle(mut self: Box<Self>) -> Result<(), Error> {
        remove::remove_all(&self.pins, &mut self.netlink)
    }
}

/// Makes the kernel count runs and run time of programs, all of the machine's,
/// for as long as this descriptor is open. It costs them some time.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn enable_stats() -> io::Result<OwnedFd> {
    sys::enable_stats()
}

fn route_key(prefix: &IpNet) -> RouteKey {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    RouteKey {
        prefix_len: mapped + u32::from(prefix.prefix_len()),
        address: prefix.trunc().addr().into(),
    }
}
