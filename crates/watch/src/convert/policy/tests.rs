use ripstop_model::{
    Action, ClusterNetworkPolicy, LabelSelector, NamespaceScope, NetworkPolicy, ObjectKey, Peer,
    PortMatch, PortSet, PortsOf, Protocol, Rule, Tier,
};
use serde_json::{Value, json};

use super::*;
use crate::convert::Converted;

fn policy(spec: Value) -> Converted<NetworkPolicy> {
    let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    network_policy(&serde_json::from_value(object).unwrap())
}

/// A policy that is as it should be.
fn good(spec: Value) -> NetworkPolicy {
    let converted = policy(spec);
    assert_eq!(converted.problems, []);
    converted.model.unwrap()
}

fn cluster(spec: Value) -> Converted<ClusterNetworkPolicy> {
    let object = json!({"metadata": {"name": "c"}, "spec": spec});
    cluster_network_policy(&serde_json::from_value(object).unwrap())
}

/// Messages of an object's problems.
fn messages<T>(converted: &Converted<T>) -> Vec<String> {
    let problems = converted.problems.iter();
    problems.map(ToString::to_string).collect()
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch {
        protocol: PortsOf::Protocol(protocol),
        ports: PortSet::Range(first..=last),
    }
}

const EVERYTHING: Rule = Rule {
    peers: None,
    ports: None,
};

#[test]
fn policy_types_are_defaulted() {
    for (spec, ingress, egress) in [
        (json!({}), true, false),
        (json!({"ingress": [{}]}), true, false),
        (json!({"egress": []}), true, false),
        (json!({"egress": [{}]}), true, true),
        (json!({"policyTypes": ["Egress"]}), false, true),
        (
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            false,
            true,
        ),
        (json!({"policyTypes": ["Ingress", "Egress"]}), true, true),
        (json!({"policyTypes": [], "egress": [{}]}), true, true),
    ] {
        let policy = good(spec.clone());
        let about = (policy.ingress.is_some(), policy.egress.is_some());
        assert_eq!(about, (ingress, egress), "{spec}");
        assert_eq!(policy.pod_selector, LabelSelector::default());
    }
}

#[test]
fn empty_lists_mean_everything() {
    let all = good(json!({"ingress": [{}, {"from": [], "ports": []}]}));
    assert_eq!(all.ingress.unwrap(), [EVERYTHING, EVERYTHING]);
    let none = good(json!({"ingress": []}));
    assert_eq!(none.ingress.unwrap(), []);
}

#[test]
fn peers_and_ports() {
    let policy = good(json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{
            "from": [
                {"podSelector": {}},
                {"namespaceSelector": {"matchExpressions":
                    [{"key": "team", "operator": "In", "values": ["b", "a"]}]}},
                {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ],
            "ports": [
                {"port": 80}, {"port": "http", "protocol": "UDP"}, {"protocol": "SCTP"},
                {"port": 100, "endPort": 200},
            ],
        }],
    }));
    let [rule] = policy.ingress.as_deref().unwrap() else {
        panic!("one rule expected");
    };
    let peers: Vec<_> = rule
        .peers
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        peers,
        [
            "pods everything",
            "pods everything in namespaces team in (a,b)",
            "pods app=web in namespaces everything",
            "10.0.0.0/8 except 10.1.0.0/16",
        ]
    );
    let ports: Vec<_> = rule
        .ports
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ports, ["80/TCP", "http/UDP", "*/SCTP", "100-200/TCP"]);
}

/// What cannot be read allows nothing, and never turns into an empty list.
#[test]
fn a_broken_part_of_a_policy_allows_less() {
    let nobody = || Some(Vec::new());
    let peers = |peers| Rule { peers, ports: None };
    let ports = |ports| Rule { peers: None, ports };
    for (rule, expect, message) in [
        (
            json!({"from": [{}]}),
            peers(nobody()),
            "ingress[0].from[0]: one of podSelector, namespaceSelector and ipBlock is required",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}),
            peers(nobody()),
            "ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/33\" is no address range",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}]}),
            peers(nobody()),
            "ingress[0].from[0].ipBlock.cidr: \"::ffff:10.0.0.0/104\" is no address range",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
            peers(nobody()),
            "ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/16 is not inside of 10.0.0.0/8",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
            peers(nobody()),
            "ingress[0].from[0]: ipBlock cannot stand beside",
        ),
        (
            json!({"from": [{"podSelector": {"matchExpressions":
                [{"key": "a", "operator": "Is", "values": ["b"]}]}}]}),
            peers(nobody()),
            "ingress[0].from[0].podSelector.matchExpressions[0]: operator \"Is\" is none of In",
        ),
        (
            json!({"ports": [{"port": 90, "endPort": 80}]}),
            ports(nobody_ports()),
            "ingress[0].ports[0].endPort: 80 is less than spec.ingress[0].ports[0].port, which is 90",
        ),
        (
            json!({"ports": [{"endPort": 80}]}),
            ports(nobody_ports()),
            "ingress[0].ports[0].endPort: endPort needs a port that is a number",
        ),
        (
            json!({"ports": [{"port": 80, "protocol": "ICMP"}, {"port": 81}]}),
            ports(Some(vec![range(Protocol::Tcp, 81, 81)])),
            "ingress[0].ports[0].protocol: protocol \"ICMP\" is none of TCP",
        ),
        (
            json!({"ports": [{"port": 0}]}),
            ports(nobody_ports()),
            "ingress[0].ports[0].port: 0 is not between 1 and 65535",
        ),
    ] {
        let converted = policy(json!({"ingress": [rule]}));
        let message = format!("NetworkPolicy n/p: spec.{message}");
        let [problem] = &messages(&converted)[..] else {
            panic!("one problem expected of {rule}: {converted:?}");
        };
        assert!(problem.starts_with(&message), "{problem}");
        assert_eq!(
            converted.model.unwrap().ingress.unwrap(),
            [expect],
            "{rule}"
        );
    }
}

fn nobody_ports() -> Option<Vec<PortMatch>> {
    Some(Vec::new())
}

#[test]
fn a_policy_for_nobody_knows_whom_isolates_all() {
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
    let converted = policy(json!({"podSelector": selector, "policyTypes": ["Out"]}));
    assert_eq!(
        messages(&converted),
        [
            "NetworkPolicy n/p: spec.podSelector.matchExpressions[0]: operator In needs at least one value",
            "NetworkPolicy n/p: spec.policyTypes[0]: \"Out\" is none of Ingress, Egress; both are isolated",
        ]
    );
    assert_eq!(converted.model.unwrap(), closed(ObjectKey::new("n", "p")));
}

#[test]
fn a_cluster_policy() {
    let converted = cluster(json!({
        "tier": "Baseline", "priority": 30,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}}},
        "ingress": [{"name": "dev", "action": "Pass", "from": [{"namespaces": {}}]}],
        "egress": [{
            "action": "Accept",
            "to": [
                {"networks": ["10.0.0.0/8", "fd00::/8"]}, {"nodes": {}},
                {"domainNames": ["*.kubernetes.io"]},
            ],
            "protocols": [
                {"tcp": {}}, {"udp": {"destinationPort": {"number": 53}}},
                {"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
            ],
        }, {
            "action": "Deny",
            "to": [{"pods": {"podSelector": {"matchLabels": {"app": "x"}}}}],
            "protocols": [{"destinationNamedPort": "http"}],
        }],
    }));
    assert_eq!(messages(&converted), [""; 0]);
    let policy = converted.model.unwrap();
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 30));
    assert_eq!(policy.subject.namespaces.to_string(), "a=b");
    assert_eq!(policy.ingress[0].action, Action::Pass);
    assert_eq!(policy.ingress[0].name.as_deref(), Some("dev"));
    assert!(policy.ingress[0].rule.ports.is_none());
    let egress = &policy.egress[0].rule;
    assert_eq!(egress.peers.as_ref().unwrap().len(), 4);
    assert_eq!(
        egress.ports.as_deref().unwrap(),
        [
            range(Protocol::Tcp, 0, u16::MAX),
            range(Protocol::Udp, 53, 53),
            range(Protocol::Sctp, 1, 9),
        ]
    );
    let named = &policy.egress[1].rule;
    assert_eq!(named.ports.as_ref().unwrap()[0].to_string(), "http");
    let all_namespaces = NamespaceScope::Selected(LabelSelector::default());
    let pods = LabelSelector::labels([("app", "x")]);
    let namespaces = all_namespaces;
    assert_eq!(
        named.peers.as_deref().unwrap(),
        [Peer::Pods { namespaces, pods }]
    );
}

/// As the API wants it: Accept matches nothing, Deny and Pass deny everything.
#[test]
fn a_broken_rule_of_a_cluster_policy_fails_closed() {
    let nothing = Rule {
        peers: Some(Vec::new()),
        ports: None,
    };
    let peer = json!({"services": {}});
    let networks = json!({"networks": ["10.0.0.0"]});
    let range = json!({"tcp": {"destinationPort": {"range": {"start": 9, "end": 1}}}});
    for (action, to, protocols, becomes, rule, message) in [
        (
            "Accept",
            &peer,
            None,
            Action::Accept,
            &nothing,
            "to[0]: \"services\" is none of namespaces",
        ),
        (
            "Deny",
            &peer,
            None,
            Action::Deny,
            &EVERYTHING,
            "to[0]: \"services\" is none of",
        ),
        (
            "Pass",
            &peer,
            None,
            Action::Deny,
            &EVERYTHING,
            "to[0]: \"services\" is none of",
        ),
        (
            "Deny",
            &json!({}),
            None,
            Action::Deny,
            &EVERYTHING,
            "to[0]: exactly one of namespaces",
        ),
        (
            "Accept",
            &networks,
            None,
            Action::Accept,
            &nothing,
            "to[0].networks[0]: \"10.0.0.0\" is no",
        ),
        (
            "Accept",
            &json!({"nodes": {}}),
            Some(&range),
            Action::Accept,
            &nothing,
            "protocols[0].tcp.destinationPort.range.end: 1 is less than",
        ),
        (
            "Deny",
            &json!({"domainNames": ["a.b"]}),
            None,
            Action::Deny,
            &EVERYTHING,
            "to[0].domainNames: domain names can only be accepted",
        ),
        (
            "Allow",
            &json!({"nodes": {}}),
            None,
            Action::Deny,
            &Rule {
                peers: Some(vec![Peer::Nodes(LabelSelector::default())]),
                ports: None,
            },
            "action: \"Allow\" is none of Accept, Deny, Pass",
        ),
    ] {
        let mut given = json!({"action": action, "to": [to]});
        if let Some(protocols) = protocols {
            given["protocols"] = json!([protocols]);
        }
        let converted = cluster(json!({
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [given],
        }));
        let [problem] = &messages(&converted)[..] else {
            panic!("one problem expected of {given}: {converted:?}");
        };
        let message = format!("ClusterNetworkPolicy c: spec.egress[0].{message}");
        assert!(problem.starts_with(&message), "{problem}");
        let policy = converted.model.unwrap();
        assert_eq!(
            (policy.egress[0].action, &policy.egress[0].rule),
            (becomes, rule),
            "{given}"
        );
    }
}

#[test]
fn a_cluster_policy_for_nobody_knows_whom_only_denies() {
    let rule = |action: &str| json!({"action": action, "from": [{"namespaces": {}}]});
    let converted = cluster(json!({
        "tier": "Admin", "priority": 5000, "subject": {"users": {}},
        "ingress": [rule("Accept"), rule("Deny"), rule("Pass")],
    }));
    assert_eq!(
        messages(&converted),
        [
            "ClusterNetworkPolicy c: spec.priority: 5000 is not between 0 and 1000; asked first",
            "ClusterNetworkPolicy c: spec.subject: \"users\" is none of namespaces, pods",
        ]
    );
    let policy = converted.model.unwrap();
    let actions: Vec<_> = policy.ingress.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::Deny]);
    assert_eq!(policy.subject.namespaces, LabelSelector::default());
}

#[test]
fn a_pod_as_the_api_returns_it() {
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"},
            "managedFields": [{"manager": "kubelet"}]},
        "spec": {
            "nodeName": "node1",
            "initContainers": [
                {"name": "setup", "ports": [{"name": "gone", "containerPort": 1}]},
                {"name": "sidecar", "restartPolicy": "Always",
                    "ports": [{"name": "metrics", "containerPort": 9090, "protocol": "TCP"}]},
            ],
            "containers": [{"name": "c", "image": "i", "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                {"containerPort": 9999}, {"name": "bad", "containerPort": 70000},
            ]}],
        },
        "status": {"phase": "Running", "podIP": "10.244.1.2",
            "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]},
    });
    let converted = pod(&serde_json::from_value(object).unwrap());
    assert_eq!(
        messages(&converted),
        ["Pod shop/web-1: port bad: containerPort: 70000 is not between 1 and 65535"]
    );
    let pod = converted.model.unwrap();
    assert_eq!(
        (pod.key.to_string().as_str(), &*pod.uid),
        ("shop/web-1", "u-1")
    );
    assert_eq!(pod.labels.get("app"), Some("web"));
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!(pod.node.as_deref(), Some("node1"));
    assert_eq!(pod.port("http", Protocol::Tcp), Some(8080));
    assert_eq!(pod.port("metrics", Protocol::Tcp), Some(9090));
    assert_eq!(pod.port("gone", Protocol::Tcp), None);
    assert!(pod.is_subject());
}

#[test]
fn pods_that_are_no_subjects() {
    for (spec, status) in [
        (json!({"hostNetwork": true}), json!({"phase": "Running"})),
        (json!({}), json!({"phase": "Succeeded"})),
        (json!({}), json!({"phase": "Failed"})),
    ] {
        let object =
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": status});
        let pod = pod(&serde_json::from_value(object).unwrap()).model.unwrap();
        assert!(!pod.is_subject(), "{pod:?}");
    }
    let new = json!({"metadata": {"name": "p", "namespace": "n"}});
    assert!(
        pod(&serde_json::from_value(new).unwrap())
            .model
            .unwrap()
            .is_subject()
    );
}
