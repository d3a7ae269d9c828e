//! From objects to rows, re-planning only what an object touches.

mod update;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ripstop_model::{EndpointSlice, Node, ObjectKey, Problem, Service, ServiceCidr, SliceEndpoint};

use crate::claims::Claims;
use crate::names::ServiceNames;
use crate::policy::PolicyPlanner;
use crate::ranges::Ranges;
use crate::service::{self, Asked, Claim};
use crate::{Change, Frontend, HealthCheck, Range, Tables};

/// What of the node's configuration the rows depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// By `healthCheckNodePort`; `None` closes the port.
    pub health: BTreeMap<u16, Option<HealthCheck>>,
    /// What of the objects is ignored, all of it, if that may have changed.
    pub problems: Option<BTreeSet<Problem>>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.names.is_empty()
            && self.health.is_empty()
            && self.problems.is_none()
    }
}

/// A service, its slices (either may come first), and what it asks for.
#[derive(Debug)]
struct Entry {
    key: Arc<ObjectKey>,
    service: Option<Service>,
    /// By name. Most services have one or two: no tree.
    slices: Vec<EndpointSlice>,
    asked: Asked,
    health: Option<u16>,
    /// Is among the services to plan, or to name.
    stale: bool,
    stale_names: bool,
}

impl Entry {
    fn new(key: ObjectKey) -> Self {
        Self {
            key: Arc::new(key),
            service: None,
            slices: Vec::new(),
            asked: Asked::default(),
            health: None,
            stale: false,
            stale_names: false,
        }
    }

    /// Where a slice is, or would be.
    fn slice(&self, name: &str) -> Result<usize, usize> {
        let slices = &self.slices;
        slices.binary_search_by(|slice| slice.key.name.as_str().cmp(name))
    }

    /// Whether the choice among its endpoints depends on this node's zone.
    fn has_zone_hints(&self) -> bool {
        let mut endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| !endpoint.zone_hints.is_empty())
    }
}

/// Who asks for a frontend: the least owns it.
type Claimant = (u8, Arc<ObjectKey>);

/// Holds the objects and the rows that follow from them.
///
/// Objects go in one by one and only mark what they touch; [`take_update`]
/// plans the marked rows, so a burst of events about one service plans it once.
///
/// [`take_update`]: Planner::take_update
#[derive(Debug, Default)]
pub struct Planner {
    config: PlanConfig,
    services: HashMap<Arc<ObjectKey>, Entry>,
    /// By slice: its removal does not say whose it was.
    service_of_slice: HashMap<ObjectKey, Arc<ObjectKey>>,
    nodes: HashMap<String, Node>,
    service_cidrs: HashMap<String, ServiceCidr>,
    frontend_claims: Claims<Frontend, Claimant>,
    health_claims: Claims<u16, Arc<ObjectKey>>,
    /// Own node first (`false`), then by name.
    route_claims: Claims<IpNet, (bool, String)>,
    policies: PolicyPlanner,
    ranges: Ranges,
    tables: Tables,
    health: BTreeMap<u16, HealthCheck>,
    /// Services whose rows may have changed.
    stale_services: Vec<Arc<ObjectKey>>,
    /// Frontends that somebody has given up.
    stale_frontends: BTreeSet<Frontend>,
    stale_health: BTreeSet<u16>,
    stale_names: Vec<Arc<ObjectKey>>,
    stale_routes: BTreeSet<IpNet>,
    problems_changed: bool,
}

impl Planner {
    pub fn new(config: PlanConfig) -> Self {
        let node = config.node.clone();
        let mut planner = Self {
            policies: PolicyPlanner::new(&node),
            config: PlanConfig {
                node,
                ..PlanConfig::default()
            },
            ..Self::default()
        };
        planner.configure(config);
        planner
    }

    /// Another configuration; only what depends on the difference is planned
    /// again. A node cannot become another one: `node` stays as it was.
    pub fn configure(&mut self, config: PlanConfig) {
        let node = self.config.node.clone();
        let config = PlanConfig { node, ..config };
        let before = std::mem::replace(&mut self.config, config);
        for (net, range) in configured(&before) {
            self.ranges.remove(net, range);
        }
        for (net, range) in configured(&self.config) {
            self.ranges.add(net, range);
        }
        let ports_moved = before.node_port_addresses != self.config.node_port_addresses;
        let dns_moved = before.cluster_dns != self.config.cluster_dns;
        if ports_moved || dns_moved {
            let has_node_port = |entry: &&Entry| {
                let mut services = entry.service.iter();
                services.any(|s| s.ports.iter().any(|port| port.node_port.is_some()))
            };
            let entries = self.services.values();
            let touched = entries.filter(|entry| dns_moved || has_node_port(entry));
            for key in touched.map(|e| e.key.clone()).collect::<Vec<_>>() {
                self.ask(&key);
            }
        }
    }

    pub fn config(&self) -> &PlanConfig {
        &self.config
    }

    /// Policies and what they are about.
    pub fn policies(&self) -> &PolicyPlanner {
        &self.policies
    }

    pub fn policies_mut(&mut self) -> &mut PolicyPlanner {
        &mut self.policies
    }

    /// A service as it is now.
    pub fn upsert_service(&mut self, service: Service) {
        let entry = self.entry(&service.key);
        if entry.service.as_ref() == Some(&service) {
            return;
        }
        entry.service = Some(service);
        let key = entry.key.clone();
        self.ask(&key);
        self.mark_names(&key);
    }

    /// One that is not known is no error.
    pub fn remove_service(&mut self, key: &ObjectKey) {
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        if entry.service.take().is_some() {
            let key = entry.key.clone();
            self.ask(&key);
            self.mark_names(&key);
        }
        self.forget_if_empty(key);
    }

    /// A slice as it is now; it may have moved to another service.
    pub fn upsert_slice(&mut self, slice: EndpointSlice) {
        let service = ObjectKey::new(&slice.key.namespace, &slice.service);
        let before = self.service_of_slice.get(&slice.key);
        let known = before.is_some_and(|before| **before == service);
        if before.is_some() && !known {
            self.remove_slice(&slice.key);
        }
        let entry = self.entry(&service);
        let key = entry.key.clone();
        match entry.slice(&slice.key.name) {
            Ok(at) if entry.slices[at] == slice => return,
            Ok(at) => entry.slices[at] = slice,
            Err(at) => {
                let name = slice.key.clone();
                entry.slices.insert(at, slice);
                self.service_of_slice.insert(name, key.clone());
            }
        }
        self.touch_endpoints(&key);
    }

    /// One that is not known is no error.
    pub fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(service) = self.service_of_slice.remove(key) else {
            return;
        };
        if let Some(entry) = self.services.get_mut(&service)
            && let Ok(at) = entry.slice(&key.name)
        {
            entry.slices.remove(at);
        }
        self.touch_endpoints(&service);
        self.forget_if_empty(&service);
    }

    /// A node as it is now.
    pub fn upsert_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) != Some(&node) {
            let name = node.name.clone();
            self.replace_node(&name, Some(node));
        }
    }

    /// One that is not known is no error.
    pub fn remove_node(&mut self, name: &str) {
        self.replace_node(name, None);
    }

    /// A ServiceCIDR as it is now.
    pub fn upsert_service_cidr(&mut self, service_cidr: ServiceCidr) {
        self.remove_service_cidr(&service_cidr.name);
        for cidr in &service_cidr.cidrs {
            self.ranges.add(*cidr, Range::Services);
        }
        self.service_cidrs
            .insert(service_cidr.name.clone(), service_cidr);
    }

    /// One that is not known is no error.
    pub fn remove_service_cidr(&mut self, name: &str) {
        let before = self.service_cidrs.remove(name);
        for cidr in before.into_iter().flat_map(|before| before.cidrs) {
            self.ranges.remove(cidr, Range::Services);
        }
    }

    /// Removes the services that a complete list does not have.
    pub fn retain_services(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        let known = self.services.iter().filter(|(_, e)| e.service.is_some());
        for key in keys_without(known.map(|(key, _)| key), |key| keep(key)) {
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

    /// Removes the ServiceCIDRs that a complete list does not have.
    pub fn retain_service_cidrs(&mut self, keep: impl Fn(&str) -> bool) {
        for name in keys_without(self.service_cidrs.keys(), |name: &String| keep(name)) {
            self.remove_service_cidr(&name);
        }
    }

    /// The sum of all updates taken so far.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The open health check ports: the sum of all updates taken so far.
    pub fn health(&self) -> &BTreeMap<u16, HealthCheck> {
        &self.health
    }

    /// A node that is known.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// A service that is known.
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)?.service.as_ref()
    }

    /// Endpoints of a service, whatever their state; none if there is no slice.
    pub fn endpoints(&self, service: &ObjectKey) -> impl Iterator<Item = &SliceEndpoint> {
        let entry = self.services.get(service);
        let slices = entry.into_iter().flat_map(|entry| entry.slices.iter());
        slices.flat_map(|slice| &slice.endpoints)
    }

    fn entry(&mut self, key: &ObjectKey) -> &mut Entry {
        if !self.services.contains_key(key) {
            let entry = Entry::new(key.clone());
            self.services.insert(entry.key.clone(), entry);
        }
        self.services.get_mut(key).expect("it was just put in")
    }

    /// Replaces what a service asks for, and marks its rows.
    fn ask(&mut self, key: &Arc<ObjectKey>) {
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        let now = match &entry.service {
            Some(service) => service::asked(service, &self.config),
            None => Asked::default(),
        };
        let health = entry.service.as_ref().and_then(service::health_port);
        let before = std::mem::replace(&mut entry.asked, now);
        let health_before = std::mem::replace(&mut entry.health, health);
        self.problems_changed |= before.problems != entry.asked.problems;

        let owner = |claim: &Claim| (claim.rank, key.clone());
        for claim in without(&before.claims, &entry.asked.claims) {
            self.frontend_claims.release(claim.frontend, &owner(claim));
            self.stale_frontends.insert(claim.frontend);
        }
        for claim in without(&entry.asked.claims, &before.claims) {
            self.frontend_claims.claim(claim.frontend, &owner(claim));
        }
        if health != health_before {
            if let Some(port) = health_before {
                self.health_claims.release(port, key);
                self.stale_health.insert(port);
            }
            if let Some(port) = health {
                self.health_claims.claim(port, key);
            }
        }
        self.stale_health.extend(health);
        if !std::mem::replace(&mut entry.stale, true) {
            self.stale_services.push(key.clone());
        }
    }

    fn mark_names(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.services.get_mut(key)
            && !std::mem::replace(&mut entry.stale_names, true)
        {
            self.stale_names.push(entry.key.clone());
        }
    }

    /// Marks what depends on the endpoints of a service.
    fn touch_endpoints(&mut self, service: &ObjectKey) {
        let Some(entry) = self.services.get_mut(service) else {
            return;
        };
        let Some(service) = &entry.service else {
            return;
        };
        let headless = service.headless;
        if !std::mem::replace(&mut entry.stale, true) {
            self.stale_services.push(entry.key.clone());
        }
        self.stale_health.extend(entry.health);
        if headless && !std::mem::replace(&mut entry.stale_names, true) {
            self.stale_names.push(entry.key.clone());
        }
    }

    fn replace_node(&mut self, name: &str, node: Option<Node>) {
        let zone = self.zone().map(str::to_owned);
        let claimant = (name != self.config.node, name.to_owned());
        // The new claims first: a range that stays is not up for others in
        // between, and is no change.
        for cidr in node.iter().flat_map(|node| &node.pod_cidrs) {
            self.stale_routes.insert(*cidr);
            self.route_claims.claim(*cidr, &claimant);
        }
        for (net, range) in node.iter().flat_map(ranges_of) {
            self.ranges.add(net, range);
        }
        let kept = node.iter().flat_map(|node| node.pod_cidrs.clone());
        let kept: BTreeSet<_> = kept.collect();
        let before = match node {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
        for (net, range) in before.iter().flat_map(ranges_of) {
            self.ranges.remove(net, range);
        }
        for cidr in before.iter().flat_map(|node| &node.pod_cidrs) {
            self.stale_routes.insert(*cidr);
            if !kept.contains(cidr) {
                self.route_claims.release(*cidr, &claimant);
            }
        }
        if zone.as_deref() != self.zone() {
            for entry in self.services.values_mut() {
                if entry.has_zone_hints() && !std::mem::replace(&mut entry.stale, true) {
                    self.stale_services.push(entry.key.clone());
                }
            }
        }
    }

    /// Zone of this node.
    fn zone(&self) -> Option<&str> {
        self.nodes.get(&self.config.node)?.zone.as_deref()
    }

    fn forget_if_empty(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.services.get(key)
            && entry.service.is_none()
            && entry.slices.is_empty()
        {
            self.services.remove(key);
        }
    }
}

/// Claims that are in `all` and not in `others`; both are sorted.
fn without<'a>(all: &'a [Claim], others: &'a [Claim]) -> impl Iterator<Item = &'a Claim> {
    let kept = |claim: &Claim| {
        let at = others.binary_search_by_key(&claim.frontend, |other| other.frontend);
        at.is_ok_and(|at| others[at].rank == claim.rank)
    };
    all.iter().filter(move |claim| !kept(claim))
}

fn configured(config: &PlanConfig) -> impl Iterator<Item = (IpNet, Range)> {
    let all = |nets: &'_ [IpNet], range| nets.iter().map(move |net| (*net, range)).collect();
    // The node itself answers for names, at an address of a service.
    let dns = config.cluster_dns.iter();
    let dns = dns.map(|address| (IpNet::from(*address), Range::Node));
    let kinds: [Vec<_>; 4] = [
        all(&config.cluster_cidrs, Range::Pods),
        all(&config.service_cidrs, Range::Services),
        all(&config.no_masquerade, Range::Excluded),
        dns.collect(),
    ];
    kinds.into_iter().flatten()
}

fn ranges_of(node: &Node) -> impl Iterator<Item = (IpNet, Range)> {
    let pods = node.pod_cidrs.iter().map(|cidr| (*cidr, Range::Pods));
    let addresses = node.addresses.iter();
    pods.chain(addresses.map(|address| (IpNet::from(*address), Range::Node)))
}

fn keys_without<'a, K: Clone + 'a>(
    keys: impl Iterator<Item = &'a K>,
    keep: impl Fn(&K) -> bool,
) -> Vec<K> {
    keys.filter(|key| !keep(key)).cloned().collect()
}

#[cfg(test)]
mod tests;
