//! What was marked, planned.

use std::collections::BTreeSet;

use ipnet::IpNet;
use ripstop_model::{ObjectKey, ObjectKind, ObjectRef, Problem, Reason};

use super::{Claimant, Planner, Update};
use crate::endpoints::Here;
use crate::service::{self, Rows};
use crate::{Frontend, FrontendRow, HealthCheck, NodeRoute, names};

impl Planner {
    /// Plans what the objects since the last call touched.
    pub fn take_update(&mut self) -> Update {
        let mut update = Update::default();
        self.plan_frontends(&mut update);
        for (net, range) in self.ranges.take_stale() {
            if self.tables.ranges.get(&net) != range.as_ref() {
                update.rows.ranges.insert(net, range);
            }
        }
        for cidr in std::mem::take(&mut self.stale_routes) {
            let owner = self.route_claims.owner(cidr);
            let route = owner.and_then(|(_, name)| self.route(name, cidr));
            if self.tables.routes.get(&cidr) != route.as_ref() {
                update.rows.routes.insert(cidr, route);
            }
        }
        for key in std::mem::take(&mut self.stale_names) {
            let names = self.services.get_mut(&key).and_then(|entry| {
                entry.stale_names = false;
                let service = entry.service.as_ref()?;
                names::names(service, entry.slices.iter())
            });
            update.names.insert(ObjectKey::clone(&key), names);
        }
        self.plan_health(&mut update);
        let changed = [
            std::mem::take(&mut self.problems_changed),
            self.frontend_claims.take_changed(),
            self.health_claims.take_changed(),
            self.route_claims.take_changed(),
        ];
        if changed.contains(&true) {
            update.problems = Some(self.problems());
        }
        self.tables.apply(&update.rows);
        update.rows.policy = self.policies.take_change(&mut self.tables.policy);
        update
    }

    /// What of the objects is ignored because other objects have it, or do not
    /// have what it needs.
    pub fn problems(&self) -> BTreeSet<Problem> {
        let mut problems = BTreeSet::new();
        for (frontend, owner, rest) in self.frontend_claims.conflicts() {
            problems.extend(rest.iter().map(|loser| taken(frontend, owner, loser)));
        }
        for (port, owner, rest) in self.health_claims.conflicts() {
            problems.extend(rest.iter().map(|loser| Problem {
                object: service_ref(loser),
                reason: Reason::HealthCheckPortTaken,
                message: format!("spec.healthCheckNodePort: service {owner} has {port}"),
            }));
        }
        for (cidr, (_, owner), rest) in self.route_claims.conflicts() {
            problems.extend(rest.iter().map(|(_, loser)| Problem {
                object: ObjectRef::of_cluster(ObjectKind::Node, loser),
                reason: Reason::PodRangeTaken,
                message: format!("spec.podCIDRs: node {owner} has {cidr}"),
            }));
        }
        let entries = self.services.values();
        problems.extend(entries.flat_map(|entry| entry.asked.problems.iter().cloned()));
        problems
    }

    fn plan_frontends(&mut self, update: &mut Update) {
        let (node, zone) = (self.config.node.clone(), self.zone().map(str::to_owned));
        let here = Here {
            node: &node,
            zone: zone.as_deref(),
        };
        let mut set = |frontend: Frontend, row: Option<FrontendRow>| {
            if self.tables.frontends.get(&frontend) != row.as_ref() {
                update.rows.frontends.insert(frontend, row);
            }
        };
        for key in self.stale_services.drain(..) {
            let Some(entry) = self.services.get_mut(&key) else {
                continue;
            };
            entry.stale = false;
            let Some(service) = &entry.service else {
                continue;
            };
            let mut rows = Rows::new(service, &entry.slices, here);
            for claim in &entry.asked.claims {
                let owner = self.frontend_claims.owner(claim.frontend);
                if owner.is_some_and(|(_, owner)| *owner == key) {
                    set(claim.frontend, Some(rows.row(claim)));
                }
            }
        }
        // What was given up goes to who waits for it, or to nobody.
        for frontend in std::mem::take(&mut self.stale_frontends) {
            let owner = self.frontend_claims.owner(frontend);
            let row = owner.and_then(|(_, owner)| {
                let entry = self.services.get(owner)?;
                let claims = &entry.asked.claims;
                let at = claims.binary_search_by_key(&frontend, |claim| claim.frontend);
                let mut rows = Rows::new(entry.service.as_ref()?, &entry.slices, here);
                Some(rows.row(&claims[at.ok()?]))
            });
            set(frontend, row);
        }
    }

    fn plan_health(&mut self, update: &mut Update) {
        for port in std::mem::take(&mut self.stale_health) {
            let check = self.health_claims.owner(port).and_then(|owner| {
                let entry = self.services.get(owner)?;
                let here = Here {
                    node: &self.config.node,
                    zone: self.zone(),
                };
                let service = entry.service.as_ref()?;
                Some(service::health(service, entry.slices.iter(), here))
            });
            if self.health.get(&port) == check.as_ref() {
                continue;
            }
            match &check {
                Some(check) => drop(self.health.insert(port, HealthCheck::clone(check))),
                None => drop(self.health.remove(&port)),
            }
            update.health.insert(port, check);
        }
    }

    /// The way to a range of another node's pods; none for our own, and none
    /// for a node that has no address yet.
    fn route(&self, node: &str, cidr: IpNet) -> Option<NodeRoute> {
        if node == self.config.node {
            return None;
        }
        let node = self.nodes.get(node)?;
        let via = node
            .address_like(cidr.addr())
            .or(node.addresses.first().copied())?;
        Some(NodeRoute {
            node: node.name.clone(),
            via,
        })
    }
}

/// What the loser of a frontend is told.
fn taken(frontend: Frontend, (_, owner): &Claimant, (rank, loser): &Claimant) -> Problem {
    let Frontend { protocol, port, .. } = frontend;
    let message = match service::is_node_port(*rank) {
        // The same on each of the node's addresses.
        true => format!("spec.ports: service {owner} has node port {port}/{protocol}"),
        false => format!("{frontend}: service {owner} has this address and port"),
    };
    Problem {
        object: service_ref(loser),
        reason: Reason::AddressTaken,
        message,
    }
}

fn service_ref(key: &ObjectKey) -> ObjectRef {
    ObjectRef::new(ObjectKind::Service, key.clone())
}
