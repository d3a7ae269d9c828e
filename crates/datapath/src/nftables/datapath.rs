//! What the engine does for the agent.

use ripstop_model::LocalPod;
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};

use super::readback::Scope;
use super::sets::FAMILIES;
use super::write::Changes;
use super::{
    NftEngine, TABLE, audit, flows, parts, pods, policy, pressure, readback, refused, rest,
    sources, state,
};
use crate::engine::{Datapath, Drift, EngineStatus, Error, Part, PolicySettings, ResolvedRoute};
use crate::state::{Connection, Denials, FrontendState, TranslatedFlow};

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
                self.read_back(Scope::ButBlocks)?;
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
            self.read_back(Scope::ButBlocks)?;
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
        audit::audit(self, desired, pods, Scope::All)
    }

    fn audit_part(
        &mut self,
        desired: &Tables,
        pods: &[LocalPod],
        part: Part,
    ) -> Result<(Drift, Option<Part>), Error> {
        parts::audit(self, desired, pods, part)
    }

    fn verify_part(
        &self,
        desired: &Tables,
        part: Part,
    ) -> Result<(Vec<String>, Option<Part>), Error> {
        parts::verify(self, desired, part)
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
        let raw = readback::raw(&mut self.nftables.borrow_mut(), Scope::All)?;
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

    /// Its ports are never another one's.
    fn share_ports(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
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
