//! Whatever the history, what was planned step by step is what a plan from
//! scratch gives, and both are what the rules say in their plainest form.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ripstop_model::{
    EndpointSlice, EndpointState, Node, ObjectKey, Problem, Protocol, Service, ServiceCidr,
    ServiceKind, ServicePort, SliceEndpoint, SlicePort, TrafficPolicy,
};
use ripstop_plan::{HealthCheck, PlanConfig, Planner, ServiceNames, Tables};
use rules::World;

type Names = BTreeMap<ObjectKey, ServiceNames>;

#[derive(Clone, Debug)]
enum Step {
    Service(Service),
    Slice(EndpointSlice),
    Node(Node),
    ServiceCidr(ServiceCidr),
    RemoveService(ObjectKey),
    RemoveSlice(ObjectKey),
    RemoveNode(String),
    RemoveServiceCidr(String),
    /// A list after a gap: only these objects are left, nothing said which went.
    Relist(BTreeSet<ObjectKey>),
    Configure(PlanConfig),
    Plan,
}

const SERVICES: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DNS: &str = "10.96.0.10";

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn some_of<T>(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<T>>
where
    T: std::str::FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug + 'static,
{
    subsequence(parse::<T>(texts), 0..=texts.len())
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn policies() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn keys() -> impl Strategy<Value = ObjectKey> {
    (select(vec!["x", "y"]), select(SERVICES.to_vec())).prop_map(|(ns, n)| ObjectKey::new(ns, n))
}

prop_compose! {
    fn ports()(
        name in select(vec!["", "http"]), protocol in protocols(), port in 80..82u16,
        node_port in prop_oneof![Just(None), (30080..30082u16).prop_map(Some), Just(Some(80))],
    ) -> ServicePort {
        ServicePort { name: name.to_owned(), protocol, port, node_port, app_protocol: None }
    }
}

prop_compose! {
    fn services()(
        key in keys(),
        kind in select(vec![ServiceKind::ClusterIp, ServiceKind::NodePort, ServiceKind::LoadBalancer]),
        cluster_ips in some_of(&["10.96.0.1", "10.96.0.2", DNS, "fd00:96::1", "fd00:96::2"]),
        external_ips in some_of(&["192.0.2.1", "10.96.0.1", DNS, "2001:db8::1"]),
        load_balancer_ips in some_of(&["192.0.2.1", "172.30.1.12", "2001:db8::1"]),
        load_balancer_source_ranges in some_of(&["198.51.100.0/24", "2001:db8:1::/48"]),
        ports in vec(ports(), 0..3),
        (publish_not_ready, affinity) in any::<(bool, Option<u32>)>(),
        (internal_policy, external_policy) in (policies(), policies()),
        health_check_node_port in select(vec![None, Some(31000), Some(31001)]),
        proxied in proptest::bool::weighted(0.9),
    ) -> Service {
        Service {
            kind, headless: cluster_ips.is_empty(), cluster_ips, external_ips, load_balancer_ips,
            load_balancer_source_ranges, ports, publish_not_ready, affinity, internal_policy,
            external_policy, health_check_node_port, proxied, ..Service::new(key)
        }
    }
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

prop_compose! {
    fn endpoints()(
        address in select(parse::<IpAddr>(&["10.244.0.1", "10.244.0.2", "fd00:244::1"])),
        (ready, serving, terminating) in any::<(bool, bool, bool)>(),
        hostname in select(vec![None, Some("h-0"), Some("h-1")]),
        node in select(vec![None, Some("n1"), Some("n2")]),
        // Mostly with hints: they count only if nobody is without.
        zones in prop_oneof![1 => Just(vec![]), 4 => subsequence(vec!["a", "b"], 1..=2)],
        nodes in prop_oneof![3 => Just(vec![]), 4 => subsequence(vec!["n1", "n2"], 1..=2)],
    ) -> SliceEndpoint {
        SliceEndpoint {
            state: EndpointState { ready, serving, terminating },
            hostname: hostname.map(str::to_owned), node: node.map(str::to_owned),
            zone_hints: owned(zones), node_hints: owned(nodes), ..SliceEndpoint::new(address)
        }
    }
}

prop_compose! {
    fn slices()(
        key in keys(),
        service in select(SERVICES.to_vec()),
        ports in vec((select(vec!["", "http"]), protocols(), 8080..8082u16), 0..3),
        endpoints in vec(endpoints(), 0..4),
        proxied in proptest::bool::weighted(0.9),
    ) -> EndpointSlice {
        let ports = ports.into_iter().map(|(name, protocol, port)| SlicePort {
            name: name.to_owned(), protocol, port,
        });
        EndpointSlice { key, service: service.to_owned(), ports: ports.collect(), endpoints, proxied }
    }
}

prop_compose! {
    fn nodes()(
        name in select(NODES.to_vec()),
        addresses in some_of(&["172.30.1.11", "172.30.1.12", "fd00:30:1::11"]),
        pod_cidrs in some_of(&["10.244.1.0/24", "10.244.2.0/24", "fd00:244:0:1::/64"]),
        zone in select(vec![None, Some("a"), Some("b")]),
    ) -> Node {
        Node { name: name.to_owned(), addresses, pod_cidrs, zone: zone.map(str::to_owned) }
    }
}

prop_compose! {
    fn service_cidrs()(
        name in select(SERVICES.to_vec()),
        cidrs in some_of(&["10.96.0.0/16", "10.97.0.0/16", "fd00:96::/112"]),
    ) -> ServiceCidr {
        ServiceCidr { name: name.to_owned(), cidrs }
    }
}

prop_compose! {
    fn configs()(
        cluster_dns in some_of(&[DNS]),
        node_port_addresses in some_of(&["127.0.0.1", "172.30.1.12", "10.96.0.1", "fd00:30:1::12"]),
        cluster_cidrs in some_of(&["10.244.0.0/16", "fd00:244::/48"]),
        service_cidrs in some_of(&["10.96.0.0/16", "fd00:96::/112"]),
        no_masquerade in some_of(&["10.0.0.0/8", "10.96.0.0/16", "172.30.1.11/32"]),
    ) -> PlanConfig {
        PlanConfig {
            node: "n2".to_owned(), cluster_dns, node_port_addresses, cluster_cidrs, service_cidrs,
            no_masquerade,
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => services().prop_map(Step::Service),
        6 => slices().prop_map(Step::Slice),
        3 => nodes().prop_map(Step::Node),
        1 => service_cidrs().prop_map(Step::ServiceCidr),
        1 => keys().prop_map(Step::RemoveService),
        1 => keys().prop_map(Step::RemoveSlice),
        1 => select(NODES.to_vec()).prop_map(|n| Step::RemoveNode(n.to_owned())),
        1 => select(SERVICES.to_vec()).prop_map(|n| Step::RemoveServiceCidr(n.to_owned())),
        1 => vec(keys(), 0..6).prop_map(|keys| Step::Relist(keys.into_iter().collect())),
        1 => configs().prop_map(Step::Configure),
        4 => Just(Step::Plan),
    ]
}

fn config() -> PlanConfig {
    PlanConfig {
        node: "n2".to_owned(),
        cluster_dns: parse(&[DNS]),
        node_port_addresses: parse(&["127.0.0.1", "172.30.1.12", "fd00:30:1::12"]),
        cluster_cidrs: parse(&["10.244.0.0/16", "fd00:244::/48"]),
        service_cidrs: parse(&["10.96.0.0/16"]),
        no_masquerade: Vec::new(),
    }
}

/// What follows from the updates of a planner.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    tables: Tables,
    names: Names,
    health: BTreeMap<u16, HealthCheck>,
    problems: BTreeSet<Problem>,
}

impl Sum {
    fn take(&mut self, planner: &mut Planner) {
        let update = planner.take_update();
        self.tables.apply(&update.rows);
        for (service, change) in update.names {
            match change {
                Some(change) => drop(self.names.insert(service, change)),
                None => drop(self.names.remove(&service)),
            }
        }
        for (port, check) in update.health {
            match check {
                Some(check) => drop(self.health.insert(port, check)),
                None => drop(self.health.remove(&port)),
            }
        }
        if let Some(problems) = update.problems {
            self.problems = problems;
        }
    }
}

fn walk(steps: Vec<Step>) -> (World, Sum, Planner) {
    let mut world = World::new(config());
    let mut planner = Planner::new(config());
    let mut sum = Sum::default();
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
            Step::ServiceCidr(cidr) => {
                world.service_cidrs.insert(cidr.name.clone(), cidr.clone());
                planner.upsert_service_cidr(cidr);
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
            Step::RemoveServiceCidr(name) => {
                world.service_cidrs.remove(&name);
                planner.remove_service_cidr(&name);
            }
            Step::Relist(keep) => {
                world.services.retain(|key, _| keep.contains(key));
                world.slices.retain(|key, _| keep.contains(key));
                world.nodes.retain(|name, _| name != "n1");
                world.service_cidrs.retain(|name, _| name != "a");
                planner.retain_services(|key| keep.contains(key));
                planner.retain_slices(|key| keep.contains(key));
                planner.retain_nodes(|name| name != "n1");
                planner.retain_service_cidrs(|name| name != "a");
            }
            Step::Configure(config) => {
                world.config = config.clone();
                planner.configure(config);
            }
            Step::Plan => sum.take(&mut planner),
        }
    }
    (world, sum, planner)
}

fn check_names(world: &World, names: &Names) -> Result<(), TestCaseError> {
    for namespace in ["x", "y"] {
        for name in SERVICES {
            let key = ObjectKey::new(namespace, name);
            let mut expected: BTreeSet<(String, IpAddr)> = BTreeSet::new();
            if let Some(service) = world.services.get(&key) {
                expected.extend(service.cluster_ips.iter().map(|ip| (String::new(), *ip)));
                for endpoint in world.endpoints_of(service) {
                    if service.headless && (endpoint.state.ready || service.publish_not_ready) {
                        let host = match &endpoint.hostname {
                            Some(host) => host.clone(),
                            None => endpoint.address.to_string().replace(['.', ':'], "-"),
                        };
                        expected.insert((host, endpoint.address));
                    }
                }
            }
            let found: BTreeSet<(String, IpAddr)> = match names.get(&key) {
                None => BTreeSet::new(),
                Some(ServiceNames::Cluster { addresses, .. }) => {
                    addresses.iter().map(|ip| (String::new(), *ip)).collect()
                }
                Some(ServiceNames::Headless(headless)) => {
                    let hosts = headless.hosts.iter();
                    hosts.map(|h| (h.name.to_string(), h.address)).collect()
                }
                // Held to its object in names.rs.
                Some(ServiceNames::Alias(_)) => BTreeSet::new(),
            };
            prop_assert_eq!(found, expected);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn step_by_step_is_from_scratch(history in vec(steps(), 0..40)) {
        let (world, sum, planner) = walk(history);
        prop_assert_eq!(&sum.tables, planner.tables());
        prop_assert_eq!(&sum.health, planner.health());
        prop_assert_eq!(&sum.problems, &planner.problems());
        prop_assert_eq!(&sum.tables, &world.tables());
        prop_assert_eq!(&sum.health, &world.health());
        check_names(&world, &sum.names)?;

        let mut fresh = Planner::new(world.config);
        world.service_cidrs.into_values().for_each(|c| fresh.upsert_service_cidr(c));
        world.nodes.into_values().rev().for_each(|n| fresh.upsert_node(n));
        world.slices.into_values().rev().for_each(|s| fresh.upsert_slice(s));
        world.services.into_values().rev().for_each(|s| fresh.upsert_service(s));
        let mut scratch = Sum::default();
        scratch.take(&mut fresh);
        prop_assert_eq!(sum, scratch);
    }
}

#[test]
fn ranges_are_as_configured() {
    let (world, sum, _) = walk(Vec::new());
    // The node answers for names itself.
    let dns = format!("{DNS}/32");
    let all: Vec<IpNet> = parse(&["10.96.0.0/16", &dns, "10.244.0.0/16", "fd00:244::/48"]);
    assert_eq!(sum.tables.ranges.keys().copied().collect::<Vec<_>>(), all);
    assert_eq!(sum.tables, world.tables());
}
