//! Whatever the history, what was planned step by step is what a plan from
//! scratch gives, and both are what the rules say in their plainest form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ripstop_model::{
    EndpointSlice, EndpointState, Node, ObjectKey, Protocol, Service, ServicePort, SliceEndpoint,
    SlicePort,
};
use ripstop_plan::{
    Backend, Frontend, FrontendRow, Lookup, Names, NodeRoute, PlanConfig, Planner, Tables,
};

/// The objects that exist; a history is a walk through such worlds.
#[derive(Clone, Debug, Default)]
struct World {
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug)]
enum Step {
    Service(Service),
    Slice(EndpointSlice),
    Node(Node),
    RemoveService(ObjectKey),
    RemoveSlice(ObjectKey),
    RemoveNode(String),
    /// A list after a gap: only these objects are left, nothing said which went.
    Relist(BTreeSet<ObjectKey>),
    Plan,
}

const SERVICES: [&str; 3] = ["a", "b", "c"];
const DNS: &str = "10.96.0.10";

fn addresses() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "10.96.0.1",
        "10.96.0.2",
        DNS,
        "fd00:96::1",
        "fd00:96::2",
    ])
    .prop_map(|ip| ip.parse().unwrap())
}

fn endpoint_addresses() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.244.0.1", "10.244.0.2", "fd00:244::1"]).prop_map(|ip| ip.parse().unwrap())
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn keys() -> impl Strategy<Value = ObjectKey> {
    (select(vec!["x", "y"]), select(SERVICES.to_vec())).prop_map(|(ns, n)| ObjectKey::new(ns, n))
}

prop_compose! {
    fn services()(
        key in keys(),
        cluster_ips in vec(addresses(), 0..3),
        ports in vec((select(vec!["", "http"]), protocols(), 80..82u16), 0..3),
        publish_not_ready: bool,
    ) -> Service {
        let ports = ports.into_iter().map(|(name, protocol, port)| ServicePort {
            name: name.to_owned(), protocol, port, node_port: None, app_protocol: None,
        });
        Service {
            headless: cluster_ips.is_empty(), cluster_ips,
            ports: ports.collect(), publish_not_ready, ..Service::new(key)
        }
    }
}

prop_compose! {
    fn endpoints()(
        address in endpoint_addresses(),
        (ready, serving, terminating) in any::<(bool, bool, bool)>(),
        hostname in select(vec![None, Some("h-0"), Some("h-1")]),
    ) -> SliceEndpoint {
        SliceEndpoint {
            state: EndpointState { ready, serving, terminating },
            hostname: hostname.map(str::to_owned), ..SliceEndpoint::new(address)
        }
    }
}

prop_compose! {
    fn slices()(
        key in keys(),
        service in select(SERVICES.to_vec()),
        ports in vec((select(vec!["", "http"]), protocols(), 8080..8082u16), 0..3),
        endpoints in vec(endpoints(), 0..4),
    ) -> EndpointSlice {
        let ports = ports.into_iter().map(|(name, protocol, port)| SlicePort {
            name: name.to_owned(), protocol, port,
        });
        EndpointSlice { key, service: service.to_owned(), ports: ports.collect(), endpoints }
    }
}

prop_compose! {
    fn nodes()(
        name in select(vec!["n1", "n2", "n3"]),
        addresses in vec(select(vec!["172.30.1.11", "172.30.1.12", "fd00:30:1::11"]), 0..3),
        cidrs in vec(select(vec!["10.244.1.0/24", "10.244.2.0/24", "fd00:244:0:1::/64"]), 0..3),
    ) -> Node {
        Node {
            name: name.to_owned(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            zone: None,
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => services().prop_map(Step::Service),
        4 => slices().prop_map(Step::Slice),
        2 => nodes().prop_map(Step::Node),
        1 => keys().prop_map(Step::RemoveService),
        1 => keys().prop_map(Step::RemoveSlice),
        1 => select(vec!["n1", "n2", "n3"]).prop_map(|n| Step::RemoveNode(n.to_owned())),
        1 => vec(keys(), 0..6).prop_map(|keys| Step::Relist(keys.into_iter().collect())),
        3 => Just(Step::Plan),
    ]
}

fn planner() -> Planner {
    Planner::new(PlanConfig {
        node: "n2".to_owned(),
        cluster_dns: vec![DNS.parse().unwrap()],
        ..PlanConfig::default()
    })
}

fn take(planner: &mut Planner, tables: &mut Tables, names: &mut Names) {
    let update = planner.take_update();
    tables.apply(&update.rows);
    for (service, change) in update.names {
        names.set(&service, change);
    }
}

fn walk(steps: Vec<Step>) -> (World, Tables, Names, Planner) {
    let mut world = World::default();
    let mut planner = planner();
    let (mut tables, mut names) = (Tables::default(), Names::default());
    for step in steps.into_iter().chain([Step::Plan]) {
        match step {
            Step::Service(service) => {
                world.services.insert(service.key.clone(), service.clone());
                planner.upsert_service(service);
            }
            Step::Slice(slice) => {
                world.slices.insert(slice.key.clone(), slice.clone());
                planner.upsert_slice(slice);
            }
            Step::Node(node) => {
                world.nodes.insert(node.name.clone(), node.clone());
                planner.upsert_node(node);
            }
            Step::RemoveService(key) => {
                world.services.remove(&key);
                planner.remove_service(&key);
            }
            Step::RemoveSlice(key) => {
                world.slices.remove(&key);
                planner.remove_slice(&key);
            }
            Step::RemoveNode(name) => {
                world.nodes.remove(&name);
                planner.remove_node(&name);
            }
            Step::Relist(keep) => {
                world.services.retain(|key, _| keep.contains(key));
                world.slices.retain(|key, _| keep.contains(key));
                world.nodes.retain(|name, _| name != "n1");
                planner.retain_services(|key| keep.contains(key));
                planner.retain_slices(|key| keep.contains(key));
                planner.retain_nodes(|name| name != "n1");
            }
            Step::Plan => take(&mut planner, &mut tables, &mut names),
        }
    }
    (world, tables, names, planner)
}

/// The rules, object by object, with no thought for speed.
fn by_the_rules(world: &World) -> Tables {
    let mut tables = Tables::default();
    for service in world.services.values() {
        for &address in &service.cluster_ips {
            for port in &service.ports {
                let (protocol, number) = (port.protocol, port.port);
                let frontend = Frontend {
                    address,
                    protocol,
                    port: number,
                };
                // Services come in order of their keys, ports in the service's.
                if address != DNS.parse::<IpAddr>().unwrap() {
                    tables
                        .frontends
                        .entry(frontend)
                        .or_insert_with(|| FrontendRow {
                            backends: backends(world, service, port, address),
                            ..FrontendRow::new(service.key.clone())
                        });
                }
            }
        }
    }
    let own = world
        .nodes
        .get("n2")
        .map_or(&[][..], |node| &node.pod_cidrs);
    let mut seen: BTreeSet<IpNet> = own.iter().copied().collect();
    for node in world.nodes.values().filter(|node| node.name != "n2") {
        for &cidr in &node.pod_cidrs {
            let via = node
                .address_like(cidr.addr())
                .or(node.addresses.first().copied());
            if let (true, Some(via)) = (seen.insert(cidr), via) {
                tables.routes.insert(
                    cidr,
                    NodeRoute {
                        node: node.name.clone(),
                        via,
                    },
                );
            }
        }
    }
    tables
}

fn backends(world: &World, service: &Service, port: &ServicePort, like: IpAddr) -> Vec<Backend> {
    let found: Vec<(EndpointState, Backend)> = slices_of(world, service)
        .flat_map(|slice| {
            let same = |p: &&SlicePort| p.name == port.name && p.protocol == port.protocol;
            let target = slice.ports.iter().find(same).map(|p| p.port);
            slice.endpoints.iter().filter_map(move |e| {
                (e.address.is_ipv4() == like.is_ipv4()).then_some((
                    e.state,
                    Backend {
                        address: e.address,
                        port: target?,
                    },
                ))
            })
        })
        .collect();
    let pick = |f: &dyn Fn(EndpointState) -> bool| -> BTreeSet<Backend> {
        found
            .iter()
            .filter(|(s, _)| f(*s))
            .map(|(_, b)| *b)
            .collect()
    };
    let ready = pick(&|s| s.ready || service.publish_not_ready);
    match ready.is_empty() {
        true => pick(&|s| s.serving && s.terminating),
        false => ready,
    }
    .into_iter()
    .collect()
}

fn slices_of<'a>(
    world: &'a World,
    service: &'a Service,
) -> impl Iterator<Item = &'a EndpointSlice> {
    world.slices.values().filter(|slice| {
        slice.service == service.key.name && slice.key.namespace == service.key.namespace
    })
}

fn check_names(world: &World, names: &Names) -> Result<(), TestCaseError> {
    for namespace in ["x", "y"] {
        for name in SERVICES {
            let service = world.services.get(&ObjectKey::new(namespace, name));
            let mut expected: BTreeSet<IpAddr> = BTreeSet::new();
            if let Some(service) = service {
                expected.extend(&service.cluster_ips);
                for endpoint in slices_of(world, service).flat_map(|s| &s.endpoints) {
                    if service.headless && (endpoint.state.ready || service.publish_not_ready) {
                        expected.insert(endpoint.address);
                        let host = match &endpoint.hostname {
                            Some(host) => host.clone(),
                            None => endpoint.address.to_string().replace(['.', ':'], "-"),
                        };
                        match names.lookup(&format!("{host}.{name}.{namespace}.svc")) {
                            Lookup::Addresses(found) => {
                                prop_assert!(found.contains(&endpoint.address));
                            }
                            Lookup::NoSuchName => prop_assert!(false, "{host} has no name"),
                        }
                    }
                }
            }
            let found = match names.lookup(&format!("{name}.{namespace}.svc")) {
                Lookup::NoSuchName => BTreeSet::new(),
                Lookup::Addresses(found) => found.iter().copied().collect(),
            };
            prop_assert_eq!(found, expected);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn step_by_step_is_from_scratch(history in vec(steps(), 0..40)) {
        let (world, tables, names, planner) = walk(history);
        prop_assert_eq!(&tables, planner.tables());
        prop_assert_eq!(&tables, &by_the_rules(&world));
        check_names(&world, &names)?;

        let mut fresh = self::planner();
        world.nodes.into_values().rev().for_each(|n| fresh.upsert_node(n));
        world.slices.into_values().rev().for_each(|s| fresh.upsert_slice(s));
        world.services.into_values().rev().for_each(|s| fresh.upsert_service(s));
        let (mut fresh_tables, mut fresh_names) = (Tables::default(), Names::default());
        take(&mut fresh, &mut fresh_tables, &mut fresh_names);
        prop_assert_eq!(tables, fresh_tables);
        prop_assert_eq!(names, fresh_names);
        prop_assert_eq!(planner.conflicts(), fresh.conflicts());
    }
}
