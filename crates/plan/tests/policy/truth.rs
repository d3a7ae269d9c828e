//! The truth table: random clusters and histories, the reference and the rows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ripstop_model::{
    Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, ContainerPort, LabelMatch,
    LabelSelector, Namespace, NamespaceScope, NetworkPolicy, NodeIdentity, ObjectKey, Peer, Pod,
    PortMatch, PortSet, PortsOf, Protocol, Requirement, Rule, Tier,
};
use ripstop_plan::policy::{PolicyChange, PolicyPlanner, PolicyTables};

use crate::harness::{by_rows, from_scratch, packets, settle, tell_pod};
use crate::kernel::Kernel;
use crate::reference::World;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 3] = ["x", "y", "z"];
/// Numbers on both sides of every edge that the generated rules have.
const PORTS: [u16; 8] = [0, 52, 53, 79, 80, 443, 8080, 65535];

/// Something that happens to an object.
#[derive(Clone, Debug)]
enum Event {
    Namespace(Namespace),
    NoNamespace(String),
    Pod(Pod),
    NoPod(ObjectKey),
    Node(NodeIdentity),
    NoNode(String),
    Policy(NetworkPolicy),
    NoPolicy(ObjectKey),
    Cluster(ClusterNetworkPolicy),
    NoCluster(String),
    Name(String, Vec<IpAddr>),
    /// What came so far is planned, and compared.
    Plan,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses of pods, nodes and others, in and around the generated blocks.
fn addresses() -> Vec<IpAddr> {
    let texts = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "10.0.1.5",
        "10.0.1.6",
        "fd00::1",
        "fd00::2",
        "fd00::3",
        "fd00:0:0:1::4",
        "192.168.0.1",
        "192.168.0.2",
        "fd99::1",
        "1.1.1.1",
        "10.0.0.200",
        "10.9.0.1",
        "2001:db8::1",
        "fd00::abcd",
    ];
    texts.map(ip).to_vec()
}

fn blocks() -> Vec<IpNet> {
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.0.0.0/30",
        "10.0.0.2/32",
        "10.0.1.0/24",
        "192.168.0.0/31",
        "192.168.0.1/32",
        "1.1.1.1/32",
        "::/0",
        "::/8",
        "fd00::/8",
        "fd00::/64",
        "fd00::2/128",
    ];
    texts.map(|text| text.parse().unwrap()).to_vec()
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(
        select(vec!["app", "tier"]).prop_map(str::to_owned),
        select(VALUES.to_vec()).prop_map(str::to_owned),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let requirement = (
        select(vec!["app", "tier"]),
        0..4,
        subsequence(VALUES.to_vec(), 1..3),
    )
        .prop_map(|(key, is, values)| {
            let values = values.into_iter().map(str::to_owned).collect();
            let is = match is {
                0 => LabelMatch::In(values),
                1 => LabelMatch::NotIn(values),
                2 => LabelMatch::Exists,
                _ => LabelMatch::DoesNotExist,
            };
            Requirement {
                key: key.to_owned(),
                is,
            }
        });
    let any = proptest::collection::vec(requirement, 1..3).prop_map(LabelSelector::new);
    prop_oneof![2 => Just(LabelSelector::default()), 5 => any]
}

fn scope() -> impl Strategy<Value = NamespaceScope> {
    let by_name = select(NAMESPACES.to_vec()).prop_map(|name| {
        NamespaceScope::Selected(LabelSelector::labels([(
            "kubernetes.io/metadata.name",
            name,
        )]))
    });
    prop_oneof![
        Just(NamespaceScope::Own),
        selector().prop_map(NamespaceScope::Selected),
        by_name
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = (scope(), selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods });
    let block = (select(blocks()), subsequence(blocks(), 0..3))
        .prop_map(|(cidr, except)| Peer::Block { cidr, except });
    let domain = select(vec!["one.example", "*.one.example"])
        .prop_map(|pattern| Peer::Domain(pattern.parse().unwrap()));
    prop_oneof![4 => pods, 3 => block, 1 => selector().prop_map(Peer::Nodes), 1 => domain]
}

fn port() -> impl Strategy<Value = PortMatch> {
    let protocol = select(vec![
        PortsOf::Protocol(Protocol::Tcp),
        PortsOf::Protocol(Protocol::Udp),
        PortsOf::Protocol(Protocol::Sctp),
        PortsOf::Any,
    ]);
    let ports = prop_oneof![
        Just(PortSet::ALL),
        select(vec![
            53..=53,
            80..=80,
            80..=443,
            53..=8080,
            443..=65535,
            0..=79
        ])
        .prop_map(PortSet::Range),
        select(vec!["http", "dns"]).prop_map(|name| PortSet::Named(name.to_owned())),
    ];
    (protocol, ports).prop_map(|(protocol, ports)| PortMatch { protocol, ports })
}

fn rule() -> impl Strategy<Value = Rule> {
    let peers = proptest::option::weighted(0.8, proptest::collection::vec(peer(), 0..3));
    let ports = proptest::option::weighted(0.5, proptest::collection::vec(port(), 0..3));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(rule(), 0..3)
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let name = select(vec!["p", "q", "r"]);
    let rules = || proptest::option::of(rules());
    (
        select(NAMESPACES.to_vec()),
        name,
        selector(),
        rules(),
        rules(),
    )
        .prop_map(
            |(namespace, name, pod_selector, ingress, egress)| NetworkPolicy {
                dry_run: false,
                key: ObjectKey::new(namespace, name),
                pod_selector,
                ingress,
                egress,
            },
        )
}

fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let action = || select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let rules = move || {
        let rule = (action(), rule()).prop_map(|(action, rule)| ClusterRule {
            name: None,
            action,
            rule,
        });
        proptest::collection::vec(rule, 0..3)
    };
    let tier = select(vec![Tier::Admin, Tier::Baseline]);
    let subject =
        (selector(), selector()).prop_map(|(namespaces, pods)| ClusterSubject { namespaces, pods });
    (
        select(vec!["k", "l"]),
        tier,
        0..3u16,
        subject,
        rules(),
        rules(),
    )
        .prop_map(
            |(name, tier, priority, subject, ingress, egress)| ClusterNetworkPolicy {
                dry_run: false,
                name: name.to_owned(),
                tier,
                priority,
                subject,
                ingress,
                egress,
            },
        )
}

/// Pods of three namespaces; the n-th has the n-th address of each family.
fn pod() -> impl Strategy<Value = Pod> {
    let ports = subsequence(
        vec![
            ("http", Protocol::Tcp, 80),
            ("http", Protocol::Tcp, 8080),
            ("http", Protocol::Udp, 443),
            ("dns", Protocol::Udp, 53),
        ],
        0..4,
    );
    let flags = prop_oneof![
        6 => Just((false, false)),
        1 => Just((true, false)),
        1 => Just((false, true)),
    ];
    (0..6_usize, 0..2, labels(), ports, flags, any::<bool>()).prop_map(
        |(index, incarnation, labels, ports, (host_network, ended), local)| {
            let v4 = ip(&format!("10.0.{}.{}", index / 4, index + 1));
            let v6 = ["fd00::1", "fd00::2", "fd00::3", "fd00:0:0:1::4"].get(index);
            let addresses = match host_network {
                true => vec![ip("192.168.0.2")],
                false => [v4].into_iter().chain(v6.map(|text| ip(text))).collect(),
            };
            Pod {
                uid: format!("{index}-{incarnation}").into(),
                labels: labels.into_iter().collect(),
                addresses: addresses.into(),
                node: Some(if local { "n1" } else { "n2" }.into()),
                ports: ports
                    .into_iter()
                    .map(|(name, protocol, port)| ContainerPort {
                        name: name.into(),
                        protocol,
                        port,
                    })
                    .collect(),
                host_network,
                ended,
                ..Pod::new(ObjectKey::new(NAMESPACES[index % 3], format!("pod{index}")))
            }
        },
    )
}

fn node() -> impl Strategy<Value = NodeIdentity> {
    (1..3_u8, labels(), any::<bool>()).prop_map(|(number, labels, v6)| NodeIdentity {
        name: format!("n{number}"),
        labels: labels.into_iter().collect(),
        addresses: [ip(&format!("192.168.0.{number}"))]
            .into_iter()
            .chain(v6.then(|| ip("fd99::1")))
            .collect(),
    })
}

fn event() -> impl Strategy<Value = Event> {
    let namespace = (select(NAMESPACES.to_vec()), labels()).prop_map(|(name, mut labels)| {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        Namespace {
            name: name.to_owned(),
            labels: labels.into_iter().collect(),
        }
    });
    let name = (
        select(vec!["one.example", "two.one.example"]),
        subsequence(addresses(), 0..3),
    )
        .prop_map(|(name, addresses)| Event::Name(name.to_owned(), addresses));
    prop_oneof![
        3 => namespace.prop_map(Event::Namespace),
        1 => select(NAMESPACES.to_vec()).prop_map(|name| Event::NoNamespace(name.to_owned())),
        8 => pod().prop_map(Event::Pod),
        1 => pod().prop_map(|pod| Event::NoPod(pod.key)),
        2 => node().prop_map(Event::Node),
        1 => node().prop_map(|node| Event::NoNode(node.name)),
        6 => policy().prop_map(Event::Policy),
        2 => policy().prop_map(|policy| Event::NoPolicy(policy.key)),
        3 => cluster_policy().prop_map(Event::Cluster),
        1 => cluster_policy().prop_map(|policy| Event::NoCluster(policy.name)),
        1 => name,
        4 => Just(Event::Plan),
    ]
}

/// Tells both of an event.
fn tell(world: &mut World, planner: &mut PolicyPlanner, event: &Event) {
    match event {
        Event::Namespace(namespace) => {
            world
                .namespaces
                .insert(namespace.name.clone(), namespace.clone());
            planner.upsert_namespace(namespace.clone());
        }
        Event::NoNamespace(name) => {
            world.namespaces.remove(name);
            planner.remove_namespace(name);
        }
        Event::Pod(pod) => {
            world.pods.insert(pod.key.clone(), pod.clone());
            tell_pod(planner, world, pod);
        }
        Event::NoPod(key) => {
            world.pods.remove(key);
            planner.remove_pod(key);
            planner.remove_local_pod(key);
        }
        Event::Node(node) => {
            world.nodes.insert(node.name.clone(), node.clone());
            planner.upsert_node(node.clone());
        }
        Event::NoNode(name) => {
            world.nodes.remove(name);
            planner.remove_node(name);
        }
        Event::Policy(policy) => {
            world.policies.insert(policy.key.clone(), policy.clone());
            planner.upsert_policy(policy.clone());
        }
        Event::NoPolicy(key) => {
            world.policies.remove(key);
            planner.remove_policy(key);
        }
        Event::Cluster(policy) => {
            world.cluster.insert(policy.name.clone(), policy.clone());
            planner.upsert_cluster_policy(policy.clone());
        }
        Event::NoCluster(name) => {
            world.cluster.remove(name);
            planner.remove_cluster_policy(name);
        }
        Event::Name(name, addresses) => {
            world.names.insert(name.clone(), addresses.clone());
            planner.set_name(name, addresses.clone());
        }
        Event::Plan => {}
    }
}

/// Runs a history and compares after each [`Event::Plan`] and at its end.
fn check(events: &[Event]) {
    let mut world = World {
        own_node: "n1".to_owned(),
        ..World::default()
    };
    let mut planner = PolicyPlanner::new("n1");
    let mut tables = PolicyTables::default();
    // What an engine has that is given the changes alone.
    let mut engine = PolicyTables::default();
    for event in events.iter().chain([&Event::Plan]) {
        tell(&mut world, &mut planner, event);
        if matches!(event, Event::Plan) {
            for change in settle(&mut planner, &mut tables) {
                engine.apply(&change);
            }
            assert_eq!(engine, tables, "the changes do not add up to the rows");
            assert_eq!(
                tables,
                from_scratch(&world),
                "not as if planned from scratch"
            );
            let kernel = Kernel::new(&tables);
            for packet in packets(&world, &addresses(), &PORTS) {
                let (allowed, by) = world.judge(packet);
                let in_kernel = kernel.judge(packet);
                assert_eq!(
                    (in_kernel.is_allowed(), in_kernel.by()),
                    (allowed, by.id().number()),
                    "{packet:?} in {world:#?}"
                );
                assert_eq!(by_rows(&tables, packet), (allowed, by));
            }
            let idle = planner.take_change(&mut tables);
            assert!(idle.is_empty(), "nothing happened, but {idle:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("RIPSTOP_POLICY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
    ))]

    #[test]
    fn rows_say_what_the_reference_says(events in proptest::collection::vec(event(), 1..40)) {
        check(&events);
    }

    /// While an engine puts the change of one object in place row by row, in the
    /// order that the rows' documentation gives, every packet gets the verdict
    /// from before or the one from after.
    #[test]
    fn no_packet_meets_half_a_change(
        first in proptest::collection::vec(event(), 10..30),
        then in event(),
    ) {
        let mut world = World { own_node: "n1".to_owned(), ..World::default() };
        let mut planner = PolicyPlanner::new("n1");
        let mut tables = PolicyTables::default();
        first.iter().for_each(|event| tell(&mut world, &mut planner, event));
        settle(&mut planner, &mut tables);
        let before = (world.clone(), tables.clone());
        tell(&mut world, &mut planner, &then);
        let mut engine = tables.clone();
        let changes = settle(&mut planner, &mut tables);
        for step in changes.into_iter().flat_map(steps) {
            engine.apply(&step);
            for packet in packets(&before.0, &addresses(), &PORTS) {
                // Pods that came, went or changed have rows of their own.
                if world.pods.get(&packet.pod.key) != Some(packet.pod) {
                    continue;
                }
                let now = by_rows(&engine, packet).0;
                let allowed = [by_rows(&before.1, packet).0, by_rows(&tables, packet).0];
                prop_assert!(allowed.contains(&now), "{packet:?}: {now} after {step:?}");
            }
        }
    }
}

/// A change as single rows, in the order for engines without transactions.
fn steps(change: PolicyChange) -> Vec<PolicyChange> {
    let mut steps = Vec::new();
    let (mut first, mut last) = (PolicyChange::default(), PolicyChange::default());
    for (key, row) in change.rules {
        let to = if row.is_some() { &mut first } else { &mut last };
        to.rules.insert(key, row);
    }
    for (key, row) in change.ports {
        let to = if row.is_some() { &mut first } else { &mut last };
        to.ports.insert(key, row);
    }
    first.attributions = change.attributions;
    steps.push(first);
    let mut classes: Vec<_> = change.classes.into_iter().collect();
    classes.sort_by_key(|(net, row)| match row {
        Some(_) => (0, 128 - i16::from(net.prefix_len())),
        None => (1, i16::from(net.prefix_len())),
    });
    for (net, row) in classes {
        let mut step = PolicyChange::default();
        step.classes.insert(net, row);
        steps.push(step);
    }
    for (pod, row) in change.pods {
        let mut step = PolicyChange::default();
        step.pods.insert(pod, row);
        steps.push(step);
    }
    steps.push(last);
    steps
}
