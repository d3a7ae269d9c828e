//! From objects to rows, re-planning only what an object touches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::{EndpointSlice, Node, ObjectKey, Service};

use crate::claims::Claims;
use crate::names::{self, ServiceNames};
use crate::policy::PolicyPlanner;
use crate::{Change, Frontend, NodeRoute, Tables, service};

/// What of the node's configuration the rows depend on.
#[derive(Clone, Debug, Default)]
pub struct PlanConfig {
    /// Name of this node: its own pods are not behind a route.
    pub node: String,
    /// Addresses at which this node answers DNS itself; services with these
    /// addresses get no rows.
    pub cluster_dns: Vec<IpAddr>,
    /// Addresses of this node at which NodePorts answer (`nodePortAddresses`
    /// resolved against its interfaces), loopback among them for processes of
    /// the node itself.
    pub node_port_addresses: Vec<IpAddr>,
    /// Ranges that pods' addresses come from.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges that services' addresses come from; ServiceCIDR objects add to them.
    pub service_cidrs: Vec<IpNet>,
    /// Destinations outside the cluster that see pods' own addresses.
    pub no_masquerade: Vec<IpNet>,
}

/// What events since the last [`Planner::take_update`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// For the datapath and the host's routes.
    pub rows: Change,
    /// For the DNS server; `None` removes the names of the service.
    pub names: BTreeMap<ObjectKey, Option<ServiceNames>>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.names.is_empty()
    }
}

/// A service, its slices (either may come first), and what it asks for.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    slices: BTreeMap<String, EndpointSlice>,
    claimed: Vec<Frontend>,
}

/// Holds the objects and the rows that follow from them.
///
/// Objects go in one by one and only mark what they touch; [`take_update`]
/// plans the marked rows, so a burst of events about one service plans it once.
///
/// [`take_update`]: Planner::take_update
#[derive(Debug, Default)]
pub struct Planner {
    config: PlanConfig,
    services: HashMap<ObjectKey, Entry>,
    /// Service name by slice key: a slice's removal does not say whose it was.
    service_of_slice: HashMap<ObjectKey, String>,
    nodes: HashMap<String, Node>,
    frontend_claims: Claims<Frontend, ObjectKey>,
    /// Own node first (`false`), then by name.
    route_claims: Claims<IpNet, (bool, String)>,
    policies: PolicyPlanner,
    tables: Tables,
    stale_frontends: BTreeSet<Frontend>,
    stale_names: BTreeSet<ObjectKey>,
    stale_routes: BTreeSet<IpNet>,
}

impl Planner {
    pub fn new(config: PlanConfig) -> Self {
        Self {
            policies: PolicyPlanner::new(&config.node),
            config,
            ..Self::default()
        }
    }

    /// Policies and what they are about.
    pub fn policies(&mut self) -> &mut PolicyPlanner {
        &mut self.policies
    }

    /// A service as it is now.
    pub fn upsert_service(&mut self, service: Service) {
        let entry = self.services.entry(service.key.clone()).or_default();
        if entry.service.as_ref() == Some(&service) {
            return;
        }
        let key = service.key.clone();
        let claims = service::frontends(&service, &self.config.cluster_dns);
        entry.service = Some(service);
        self.claim(&key, claims);
    }

    /// One that is not known is no error.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.services.get_mut(key) {
            entry.service = None;
            self.claim(key, Vec::new());
            self.forget_if_empty(key);
        }
    }

    /// A slice as it is now; it may have moved to another service.
    pub fn upsert_slice(&mut self, slice: EndpointSlice) {
        let service = ObjectKey::new(&slice.key.namespace, &slice.service);
        if let Some(before) = self.service_of_slice.get(&slice.key)
            && *before != slice.service
        {
            self.remove_slice(&slice.key.clone());
        }
        self.service_of_slice
            .insert(slice.key.clone(), slice.service.clone());
        let entry = self.services.entry(service.clone()).or_default();
        if entry.slices.get(&slice.key.name) == Some(&slice) {
            return;
        }
        entry.slices.insert(slice.key.name.clone(), slice);
        self.touch_endpoints(&service);
    }

    /// One that is not known is no error.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.service_of_slice.remove(key) else {
            return;
        };
        let service = ObjectKey::new(&key.namespace, service);
        if let Some(entry) = self.services.get_mut(&service) {
            entry.slices.remove(&key.name);
        }
        self.touch_endpoints(&service);
        self.forget_if_empty(&service);
    }

    /// A node as it is now.
    pub fn upsert_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) == Some(&node) {
            return;
        }
        let before = self.nodes.remove(&node.name);
        let claimant = self.route_claimant(&node.name);
        for cidr in before.iter().flat_map(|node| &node.pod_cidrs) {
            self.stale_routes.insert(*cidr);
            if !node.pod_cidrs.contains(cidr) {
                self.route_claims.release(*cidr, &claimant);
            }
        }
        for cidr in &node.pod_cidrs {
            self.stale_routes.insert(*cidr);
            self.route_claims.claim(*cidr, &claimant);
        }
        self.nodes.insert(node.name.clone(), node);
    }

    /// One that is not known is no error.
    pub fn remove_node(&mut self, name: &str) {
        let Some(node) = self.nodes.remove(name) else {
            return;
        };
        let claimant = self.route_claimant(name);
        for cidr in node.pod_cidrs {
            self.stale_routes.insert(cidr);
            self.route_claims.release(cidr, &claimant);
        }
    }

    /// Removes the services that a complete list does not have.
    pub fn retain_services(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        let known = self.services.iter().filter(|(_, e)| e.service.is_some());
        for key in keys_without(known.map(|(key, _)| key), keep) {
            self.remove_service(&key);
        }
    }

    /// Removes the slices that a complete list does not have.
    pub fn retain_slices(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        for key in keys_without(self.service_of_slice.keys(), keep) {
            self.remove_slice(&key);
        }
    }

    /// Removes the nodes that a complete list does not have.
    pub fn retain_nodes(&mut self, keep: impl Fn(&str) -> bool) {
        for name in keys_without(self.nodes.keys(), |name: &String| keep(name)) {
            self.remove_node(&name);
        }
    }

    /// Plans what the objects since the last call touched.
    pub fn take_update(&mut self) -> Update {
        let mut update = Update::default();
        for frontend in std::mem::take(&mut self.stale_frontends) {
            let row = self.frontend_claims.owner(frontend).and_then(|owner| {
                let entry = self.services.get(owner)?;
                service::row(entry.service.as_ref()?, entry.slices.values(), frontend)
            });
            if self.tables.frontends.get(&frontend) != row.as_ref() {
                update.rows.frontends.insert(frontend, row);
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
            let names = self.services.get(&key).and_then(|entry| {
                let service = entry.service.as_ref()?;
                names::names(service, entry.slices.values())
            });
            update.names.insert(key, names);
        }
        self.tables.apply(&update.rows);
        update.rows.policy = self.policies.take_change(&mut self.tables.policy);
        update
    }

    /// The sum of all updates taken so far.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A node that is known.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// One line for each address or range that several objects claim.
    pub fn conflicts(&self) -> Vec<String> {
        let frontends = self.frontend_claims.conflicts().map(|(row, owner, rest)| {
            let rest: Vec<_> = rest.iter().map(ToString::to_string).collect();
            format!("{row}: service {owner} has it, not {}", rest.join(", "))
        });
        let routes = self.route_claims.conflicts().map(|(cidr, owner, rest)| {
            let rest: Vec<_> = rest.iter().map(|(_, name)| name.as_str()).collect();
            format!("{cidr}: node {} has it, not {}", owner.1, rest.join(", "))
        });
        frontends.chain(routes).collect()
    }

    /// Replaces what a service asks for, and marks its rows and names.
    fn claim(&mut self, key: &ObjectKey, claims: Vec<Frontend>) {
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        for frontend in &entry.claimed {
            self.stale_frontends.insert(*frontend);
            if !claims.contains(frontend) {
                self.frontend_claims.release(*frontend, key);
            }
        }
        for frontend in &claims {
            self.stale_frontends.insert(*frontend);
            self.frontend_claims.claim(*frontend, key);
        }
        entry.claimed = claims;
        self.stale_names.insert(key.clone());
    }

    /// Marks what depends on the endpoints of a service.
    fn touch_endpoints(&mut self, service: &ObjectKey) {
        let Some(entry) = self.services.get(service) else {
            return;
        };
        self.stale_frontends.extend(&entry.claimed);
        if entry.service.as_ref().is_some_and(|s| s.headless) {
            self.stale_names.insert(service.clone());
        }
    }

    fn forget_if_empty(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.services.get(key)
            && entry.service.is_none()
            && entry.slices.is_empty()
        {
            self.services.remove(key);
        }
    }

    fn route_claimant(&self, node: &str) -> (bool, String) {
        (node != self.config.node, node.to_owned())
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

fn keys_without<'a, K: Clone + 'a>(
    keys: impl Iterator<Item = &'a K>,
    keep: impl Fn(&K) -> bool,
) -> Vec<K> {
    keys.filter(|key| !keep(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use ripstop_model::{Protocol, ServicePort, SliceEndpoint, SlicePort};

    use super::*;

    fn service(name: &str, ip: u8) -> Service {
        Service {
            cluster_ips: vec![IpAddr::from([10, 96, 0, ip])],
            ports: vec![ServicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
                app_protocol: None,
            }],
            ..Service::new(ObjectKey::new("shop", name))
        }
    }

    fn slice(service: &str, pods: &[u8]) -> EndpointSlice {
        let address = |pod: &u8| IpAddr::from([10, 244, 0, *pod]);
        let endpoints = pods.iter().map(|pod| SliceEndpoint::new(address(pod)));
        EndpointSlice {
            key: ObjectKey::new("shop", format!("{service}-1")),
            service: service.to_owned(),
            ports: vec![SlicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 8080,
            }],
            endpoints: endpoints.collect(),
        }
    }

    #[test]
    fn a_change_has_only_the_rows_of_its_object() {
        let mut planner = Planner::default();
        for ip in 1..=100 {
            planner.upsert_service(service(&format!("s{ip}"), ip));
            planner.upsert_slice(slice(&format!("s{ip}"), &[ip]));
        }
        let first = planner.take_update();
        assert_eq!((first.rows.frontends.len(), first.names.len()), (100, 100));

        planner.upsert_slice(slice("s7", &[7, 107]));
        let update = planner.take_update();
        let rows: Vec<_> = update.rows.frontends.into_iter().collect();
        let [(frontend, Some(row))] = rows.as_slice() else {
            panic!("one row expected, got {rows:?}");
        };
        assert_eq!(frontend.to_string(), "10.96.0.7:80/TCP");
        assert_eq!(row.backends.len(), 2);
        assert!(
            update.names.is_empty(),
            "a ClusterIP's name does not change"
        );

        planner.upsert_slice(slice("s7", &[7, 107]));
        planner.upsert_service(service("s7", 7));
        assert!(planner.take_update().is_empty(), "nothing changed");
    }

    #[test]
    fn two_services_with_one_address_are_reported() {
        let mut planner = Planner::default();
        planner.upsert_service(service("b", 1));
        planner.upsert_service(service("a", 1));
        assert_eq!(
            planner.conflicts(),
            ["10.96.0.1:80/TCP: service shop/a has it, not shop/b"]
        );
        planner.remove_service(&ObjectKey::new("shop", "a"));
        assert!(planner.conflicts().is_empty());
        let update = planner.take_update();
        let owners = update
            .rows
            .frontends
            .into_values()
            .map(|row| row.unwrap().service);
        assert_eq!(owners.collect::<Vec<_>>(), [ObjectKey::new("shop", "b")]);
    }
}
