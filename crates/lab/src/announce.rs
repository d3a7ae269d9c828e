//! Routes of the underlay to services' addresses, as an announcer (or whoever
//! runs the network) would make them: each address leads to one node.
//!
//! A service with `externalTrafficPolicy: Local` is announced from nodes that
//! have a ready endpoint; the others from any node that is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ripstop_apiserver::{Client, Watch, WatchEvent};

use crate::plan::{LabPlan, NodePlan};
use crate::underlay::{Underlay, UnderlayError};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Objects by namespace and name.
type Key = (String, String);

/// What routes depend on.
#[derive(Debug, Default)]
struct World {
    /// Names of ready nodes.
    nodes: BTreeSet<String>,
    services: BTreeMap<Key, Announced>,
    /// By slice: its service and the nodes of its ready endpoints.
    slices: BTreeMap<Key, (String, BTreeSet<String>)>,
}

/// A service with addresses that are reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Announced {
    addresses: BTreeSet<IpAddr>,
    local: bool,
}

/// Keeps the routes as the services are, for as long as the lab lives.
pub(crate) async fn run(client: Client, underlay: Arc<Underlay>, plan: LabPlan) {
    let mut nodes: Watch<Node> = client.watch();
    let mut services: Watch<Service> = client.watch();
    let mut slices: Watch<EndpointSlice> = client.watch();
    let mut world = World::default();
    let mut routes = Routes {
        underlay,
        plan,
        there: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            event = nodes.next() => world.node(event),
            event = services.next() => world.service(event),
            event = slices.next() => world.slice(event),
        }
        // What has come with it is one change.
        while let Some(event) = nodes.try_next() {
            world.node(event);
        }
        while let Some(event) = services.try_next() {
            world.service(event);
        }
        while let Some(event) = slices.try_next() {
            world.slice(event);
        }
        routes.follow(world.decide());
    }
}

impl World {
    fn node(&mut self, event: WatchEvent<Node>) {
        match event {
            WatchEvent::Applied(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                match is_ready(&node) {
                    true => self.nodes.insert(name),
                    false => self.nodes.remove(&name),
                };
            }
            WatchEvent::Deleted(node) => {
                self.nodes
                    .remove(node.metadata.name.as_deref().unwrap_or_default());
            }
            WatchEvent::Synced => {}
        }
    }

    fn service(&mut self, event: WatchEvent<Service>) {
        match event {
            WatchEvent::Applied(service) => {
                let key = key(&service.metadata);
                match announced(&service) {
                    Some(announced) => drop(self.services.insert(key, announced)),
                    None => drop(self.services.remove(&key)),
                }
            }
            WatchEvent::Deleted(service) => {
                self.services.remove(&key(&service.metadata));
            }
            WatchEvent::Synced => {}
        }
    }

    fn slice(&mut self, event: WatchEvent<EndpointSlice>) {
        match event {
            WatchEvent::Applied(slice) => {
                let labels = slice.metadata.labels.as_ref();
                let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
                let service = service.cloned().unwrap_or_default();
                let of = (service, ready_nodes(&slice));
                self.slices.insert(key(&slice.metadata), of);
            }
            WatchEvent::Deleted(slice) => drop(self.slices.remove(&key(&slice.metadata))),
            WatchEvent::Synced => {}
        }
    }

    /// Which node each address leads to. The choice depends on the address, so
    /// that services spread over nodes, and on nothing that comes and goes.
    fn decide(&self) -> BTreeMap<IpAddr, String> {
        let mut routes = BTreeMap::new();
        for ((namespace, name), announced) in &self.services {
            let able: Vec<&String> = match announced.local {
                false => self.nodes.iter().collect(),
                true => {
                    let slices = self.slices.iter();
                    let own = slices.filter(|((in_, _), (of, _))| in_ == namespace && of == name);
                    let nodes: BTreeSet<_> = own.flat_map(|(_, (_, nodes))| nodes).collect();
                    let able = nodes.into_iter().filter(|node| self.nodes.contains(*node));
                    able.collect()
                }
            };
            for address in &announced.addresses {
                let best = able.iter().max_by_key(|node| weight(address, node));
                if let Some(node) = best {
                    routes.insert(*address, (*node).clone());
                }
            }
        }
        routes
    }
}

/// Rendezvous hashing: a node that goes moves only the addresses that it had.
fn weight(address: &IpAddr, node: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address, node).hash(&mut hasher);
    hasher.finish()
}

fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn announced(service: &Service) -> Option<Announced> {
    let spec = service.spec.as_ref()?;
    let external = spec.external_ips.iter().flatten();
    let mut addresses: BTreeSet<IpAddr> = external.filter_map(|ip| ip.parse().ok()).collect();
    if spec.type_.as_deref() == Some("LoadBalancer") {
        addresses.extend(crate::controllers::ingress(service));
    }
    (!addresses.is_empty()).then(|| Announced {
        addresses,
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
    })
}

/// Nodes with an endpoint that takes connections.
fn ready_nodes(slice: &EndpointSlice) -> BTreeSet<String> {
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|c| c.ready).unwrap_or(true)
    });
    ready
        .filter_map(|endpoint| endpoint.node_name.clone())
        .collect()
}

/// The routes that there are.
struct Routes {
    underlay: Arc<Underlay>,
    plan: LabPlan,
    there: BTreeMap<IpAddr, String>,
}

impl Routes {
    fn follow(&mut self, wanted: BTreeMap<IpAddr, String>) {
        if wanted == self.there {
            return;
        }
        for (address, node) in &wanted {
            if self.there.get(address) != Some(node) {
                self.say(*address, node, Underlay::route);
            }
        }
        for (address, node) in &self.there {
            if !wanted.contains_key(address) {
                self.say(*address, node, Underlay::unroute);
            }
        }
        self.there = wanted;
    }

    fn say(
        &self,
        address: IpAddr,
        node: &str,
        how: fn(&Underlay, IpAddr, &NodePlan) -> Result<(), UnderlayError>,
    ) {
        // A node's own address leads to that node, whoever else asks for it.
        let mut own = self.plan.nodes.iter().flat_map(|node| &node.addresses);
        if own.any(|own| own.addr() == address) {
            return;
        }
        let mut nodes = self.plan.nodes.iter();
        if let Some(planned) = nodes.find(|planned| planned.name == node)
            && let Err(error) = how(&self.underlay, address, planned)
        {
            tracing::warn!(%address, node, %error, "the underlay's route is not as it should be");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let announced = |addresses: &[&str], local| Announced {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            local,
        };
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        World {
            nodes: ["node1", "node2", "node3"].map(str::to_owned).into(),
            services: BTreeMap::from([
                (key("any"), announced(&["192.0.2.1", "2001:db8::1"], false)),
                (key("here"), announced(&["192.0.2.2"], true)),
                (key("nowhere"), announced(&["192.0.2.3"], true)),
            ]),
            slices: BTreeMap::from([
                (key("any-1"), ("any".to_owned(), BTreeSet::new())),
                (
                    key("here-1"),
                    ("here".to_owned(), ["node2".to_owned()].into()),
                ),
            ]),
        }
    }

    #[test]
    fn local_services_lead_to_nodes_with_endpoints() {
        let routes = world().decide();
        let of = |address: &str| routes.get(&address.parse::<IpAddr>().unwrap());
        assert!(of("192.0.2.1").is_some() && of("2001:db8::1").is_some());
        assert_eq!(of("192.0.2.2").map(String::as_str), Some("node2"));
        assert_eq!(of("192.0.2.3"), None);
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own() {
        let mut world = world();
        let before = world.decide();
        let gone = before[&"192.0.2.1".parse::<IpAddr>().unwrap()].clone();
        world.nodes.remove(&gone);
        for (address, node) in world.decide() {
            assert_ne!(node, gone);
            assert!(before[&address] == node || before[&address] == gone);
        }
    }
}
