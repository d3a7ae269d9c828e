//! What the truth table does not ask: pods that are not known yet, what is shared
//! and what is left out.

use std::net::IpAddr;

use ripstop_model::{
    LabelSelector, Labels, Namespace, NamespaceScope, NetworkPolicy, ObjectKey, Peer, Pod,
    PortMatch, PortSet, PortsOf, Protocol, Rule,
};
use ripstop_plan::policy::{
    Attribution, ClassId, Direction, Outcome, PolicyId, PolicyPlanner, PolicyTables,
};

use crate::harness::settle;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, app: &str, address: &str) -> Pod {
    Pod {
        uid: format!("uid of {name}").into(),
        labels: [("app", app)].into_iter().collect(),
        addresses: [ip(address)].into(),
        ..Pod::new(ObjectKey::new("n", name))
    }
}

fn pods(app: &str) -> Peer {
    Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: LabelSelector::labels([("app", app)]),
    }
}

/// A policy for pods `app`: only `peers` may come in, to TCP 80.
fn policy(name: &str, app: &str, peers: Vec<Peer>) -> NetworkPolicy {
    let port = PortMatch {
        protocol: PortsOf::Protocol(Protocol::Tcp),
        ports: PortSet::Range(80..=80),
    };
    NetworkPolicy {
        key: ObjectKey::new("n", name),
        pod_selector: LabelSelector::labels([("app", app)]),
        ingress: Some(vec![Rule {
            peers: Some(peers),
            ports: Some(vec![port]),
        }]),
        egress: None,
        dry_run: false,
    }
}

fn ask(tables: &PolicyTables, pod: &str, other: &str, port: u16) -> Outcome {
    tables
        .judge(ip(pod), Direction::Ingress, ip(other), 6, port)
        .unwrap()
}

/// A planner that knows the namespace of these tests.
fn planner() -> PolicyPlanner {
    let mut planner = PolicyPlanner::new("node");
    planner.upsert_namespace(Namespace {
        name: "n".to_owned(),
        labels: Labels::default(),
    });
    planner
}

fn local(planner: &mut PolicyPlanner, pod: Pod) {
    planner.add_local_pod(&pod.key, Some(&pod.uid), pod.addresses.to_vec());
    planner.upsert_pod(pod);
}

/// Cluster policies select by it, so without it nobody can say which do.
#[test]
fn nothing_passes_before_the_namespace_is_known() {
    let mut planner = PolicyPlanner::new("node");
    let mut tables = PolicyTables::default();
    let web = pod("web-0", "web", "10.0.0.1");
    local(&mut planner, web.clone());
    settle(&mut planner, &mut tables);
    assert!(!planner.is_known(&web.key));
    assert!(!ask(&tables, "10.0.0.1", "10.0.0.2", 80).allowed);
    planner.upsert_namespace(Namespace {
        name: "n".to_owned(),
        labels: Labels::default(),
    });
    settle(&mut planner, &mut tables);
    assert!(planner.is_known(&web.key));
    assert!(ask(&tables, "10.0.0.1", "10.0.0.2", 80).allowed);
}

/// No object will ever say more of it.
#[test]
fn a_container_that_is_no_pod_is_open() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    planner.upsert_policy(policy("p", "web", vec![pods("db")]));
    planner.add_local_container("c1", vec![ip("10.0.0.1")]);
    settle(&mut planner, &mut tables);
    assert!(ask(&tables, "10.0.0.1", "10.0.0.2", 80).allowed);
    planner.remove_local_pod(&ObjectKey::new("", "c1"));
    settle(&mut planner, &mut tables);
    assert_eq!(tables, PolicyTables::default());
}

#[test]
fn nothing_passes_before_the_pod_is_known() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    let old = pod("web-0", "open", "10.0.0.9");
    planner.upsert_policy(policy("p", "web", vec![pods("db")]));
    planner.upsert_pod(pod("db", "db", "10.0.0.2"));
    // Its predecessor of the same name is still there, with other labels.
    planner.upsert_pod(old.clone());
    let new = Pod {
        uid: "another".into(),
        ..pod("web-0", "web", "10.0.0.1")
    };
    planner.add_local_pod(&new.key, Some(&new.uid), vec![ip("10.0.0.1")]);
    settle(&mut planner, &mut tables);
    let outcome = ask(&tables, "10.0.0.1", "10.0.0.2", 80);
    assert!(!outcome.allowed);
    let unknown = Attribution::UnknownPod {
        pod: new.key.clone(),
    };
    assert_eq!(tables.attribution(outcome), unknown);
    assert_eq!(unknown.to_string(), "pod n/web-0 is not known yet");

    // The object comes, without an address as yet.
    planner.upsert_pod(Pod {
        addresses: [].into(),
        ..new.clone()
    });
    settle(&mut planner, &mut tables);
    assert!(ask(&tables, "10.0.0.1", "10.0.0.2", 80).allowed);
    assert!(!ask(&tables, "10.0.0.1", "10.0.0.2", 81).allowed);
    assert!(!ask(&tables, "10.0.0.1", "10.0.0.3", 80).allowed);

    planner.remove_local_pod(&new.key);
    settle(&mut planner, &mut tables);
    assert_eq!(tables, PolicyTables::default());
}

#[test]
fn equal_rules_are_one_side_and_unused_peers_no_class() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    for index in 1..=50 {
        local(
            &mut planner,
            pod(&format!("web-{index}"), "web", &format!("10.0.0.{index}")),
        );
    }
    for index in 1..=100 {
        planner.upsert_pod(pod(
            &format!("db-{index}"),
            "db",
            &format!("10.0.1.{index}"),
        ));
        planner.upsert_pod(pod(
            &format!("other-{index}"),
            "other",
            &format!("10.0.2.{index}"),
        ));
    }
    planner.upsert_policy(policy("p", "web", vec![pods("db")]));
    // No pod of this node has it.
    planner.upsert_policy(policy("q", "elsewhere", vec![pods("other")]));
    settle(&mut planner, &mut tables);
    let sides: std::collections::BTreeSet<_> = tables
        .pods
        .values()
        .map(|pod| (pod.ingress, pod.egress))
        .collect();
    assert_eq!(sides.len(), 1);
    assert!(
        sides
            .iter()
            .all(|(ingress, egress)| { *ingress != PolicyId::NONE && *egress == PolicyId::NONE })
    );
    assert_eq!(planner.classes(), 1);
    assert_eq!(tables.classes.len(), 100, "one for each db");
    assert_eq!(tables.rules.len(), 3, "everybody of either family, and db");
    assert_eq!(tables.ports.len(), 1);
}

#[test]
fn a_change_has_only_the_rows_of_what_changed() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    for index in 1..=50 {
        let app = format!("web-{index}");
        local(&mut planner, pod(&app, &app, &format!("10.0.0.{index}")));
        planner.upsert_pod(pod(
            &format!("db-{index}"),
            "db",
            &format!("10.0.1.{index}"),
        ));
        planner.upsert_policy(policy(&app, &app, vec![pods("db")]));
    }
    settle(&mut planner, &mut tables);
    assert_eq!(tables.rules.len(), 150);

    // A label of one pod elsewhere.
    planner.upsert_pod(pod("db-7", "none", "10.0.1.7"));
    let [change] = &settle(&mut planner, &mut tables)[..] else {
        panic!("one change expected");
    };
    assert_eq!(change.classes.len(), 1);
    assert_eq!(
        (change.classes.get(&"10.0.1.7/32".parse().unwrap())),
        Some(&None)
    );
    assert!(change.rules.is_empty() && change.pods.is_empty());

    // A label of one pod here.
    local(&mut planner, pod("web-3", "web-4", "10.0.0.3"));
    let changes = settle(&mut planner, &mut tables);
    assert_eq!(changes.len(), 2, "its old side goes one change later");
    assert_eq!((changes[0].pods.len(), changes[0].rules.len()), (1, 0));
    assert_eq!((changes[1].pods.len(), changes[1].rules.len()), (0, 3));

    // A namespace whose labels nobody asks for.
    planner.upsert_namespace(Namespace {
        name: "n".to_owned(),
        labels: [("a", "b")].into_iter().collect(),
    });
    assert!(settle(&mut planner, &mut tables)[0].is_empty());
}

#[test]
fn many_blocks_of_one_rule_are_one_class() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    local(&mut planner, pod("web", "web", "10.0.0.1"));
    let block = |index: u16| {
        let [a, b] = index.to_be_bytes();
        let cidr = format!("{}.{a}.{b}.0/24", 20 + index % 3).parse().unwrap();
        Peer::Block {
            cidr,
            except: Vec::new(),
        }
    };
    planner.upsert_policy(policy("p", "web", (0..10_000).map(block).collect()));
    settle(&mut planner, &mut tables);
    assert_eq!(planner.classes(), 1);
    assert_eq!(tables.classes.len(), 10_000);
    assert!(ask(&tables, "10.0.0.1", "20.0.0.9", 80).allowed);
    assert!(!ask(&tables, "10.0.0.1", "19.0.0.9", 80).allowed);
    assert_eq!(tables.class(ip("fd00::1")), ClassId::V6);
}

fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// Found by the truth table: who is no peer at all is still not everybody.
#[test]
fn an_exception_of_all_addresses_has_a_class() {
    let mut planner = planner();
    let mut tables = PolicyTables::default();
    local(&mut planner, pod("web", "web", "10.0.0.1"));
    let all_but = vec![block("0.0.0.0/0", &["10.0.0.9/32"])];
    planner.upsert_policy(policy("p", "web", all_but));
    settle(&mut planner, &mut tables);
    assert!(ask(&tables, "10.0.0.1", "10.0.0.8", 80).allowed);
    assert!(!ask(&tables, "10.0.0.1", "10.0.0.9", 80).allowed);
}

/// Found by the truth table: the class of everybody is the same whether or not a
/// rule has ever named everybody.
#[test]
fn everybodys_class_forgets_what_named_everybody() {
    let later = policy("p", "web", vec![block("10.0.0.0/8", &["10.0.0.2/32"])]);
    let plan = |policies: Vec<NetworkPolicy>| {
        let mut planner = planner();
        let mut tables = PolicyTables::default();
        local(&mut planner, pod("web", "web", "10.0.0.1"));
        for policy in policies {
            planner.upsert_policy(policy);
            settle(&mut planner, &mut tables);
        }
        tables
    };
    let everybody = policy("p", "web", vec![block("0.0.0.0/0", &[])]);
    assert_eq!(plan(vec![everybody, later.clone()]), plan(vec![later]));
}
