//! The scheduler.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::Cluster;
use crate::controllers::pod;

fn pod(cluster: &Cluster, name: &str, spec: &str) {
    cluster.apply::<Pod>(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: default, name: {name}, labels: {{app: {name}}}}}, \
         spec: {{{spec} containers: [{{name: c, image: one}}]}}}}"
    ));
}

fn node_of(cluster: &Cluster, name: &str) -> Option<String> {
    pod::node_name(&cluster.get(name)).map(str::to_owned)
}

fn why(cluster: &Cluster, name: &str) -> String {
    let pod: Pod = cluster.get(name);
    let condition = pod::condition(&pod, "PodScheduled").unwrap().clone();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("False", Some("Unschedulable"))
    );
    condition.message.unwrap()
}

#[test]
fn pods_are_spread() {
    let mut cluster = Cluster::new(3);
    for index in 0..9 {
        pod(&cluster, &format!("p{index}"), "");
    }
    cluster.settle();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in cluster.pods("p") {
        *counts
            .entry(pod::node_name(&pod).unwrap().to_owned())
            .or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 3), "{counts:?}");
    let scheduled = cluster.events("p0");
    assert_eq!(scheduled[0].0, "Scheduled");
    assert!(
        scheduled[0]
            .1
            .starts_with("Successfully assigned default/p0 to node")
    );
    let pod: Pod = cluster.get("p0");
    assert_eq!(pod::condition(&pod, "PodScheduled").unwrap().status, "True");
}

#[test]
fn a_pod_without_a_place_says_why_and_gets_one_later() {
    let mut cluster = Cluster::new(2);
    cluster
        .client
        .modify::<Node>(None, "node1", |node| {
            node.spec.get_or_insert_default().unschedulable = Some(true)
        })
        .unwrap();
    pod(&cluster, "picky", "nodeSelector: {disk: ssd},");
    cluster.settle();
    let reasons = "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
                   1 node(s) were unschedulable.";
    assert_eq!(why(&cluster, "picky"), reasons);
    assert_eq!(
        cluster.events("picky"),
        [("FailedScheduling".to_owned(), reasons.to_owned())]
    );

    cluster
        .client
        .modify::<Node>(None, "node2", |node| {
            node.metadata
                .labels
                .get_or_insert_default()
                .insert("disk".to_owned(), "ssd".to_owned());
        })
        .unwrap();
    cluster.settle();
    assert_eq!(node_of(&cluster, "picky").as_deref(), Some("node2"));
}

#[test]
fn no_node_and_no_ready_node() {
    let mut cluster = Cluster::new(0);
    pod(&cluster, "early", "");
    cluster.settle();
    assert_eq!(
        why(&cluster, "early"),
        "no nodes available to schedule pods"
    );
    cluster.apply::<Node>("{apiVersion: v1, kind: Node, metadata: {name: late}}");
    cluster.settle();
    assert_eq!(
        why(&cluster, "early"),
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    );
    let node: Node = cluster.client.get(None, "late").unwrap();
    let spec = node.spec.unwrap();
    assert_eq!(spec.taints.unwrap()[0].key, "node.kubernetes.io/not-ready");
    assert_eq!(
        spec.pod_cidrs.unwrap(),
        ["10.244.1.0/24", "fd00:244:0:1::/64"]
    );

    cluster.client.delete::<Node>(None, "late", None).unwrap();
    cluster.add_node("late");
    cluster.settle();
    assert_eq!(node_of(&cluster, "early").as_deref(), Some("late"));
    let node: Node = cluster.client.get(None, "late").unwrap();
    assert_eq!(node.spec.unwrap().taints, None);
}

#[test]
fn tolerated_taints_and_preset_nodes() {
    let mut cluster = Cluster::new(1);
    cluster
        .client
        .modify::<Node>(None, "node1", |node| {
            node.spec = Some(super::cluster::yaml(
                "{taints: [{key: gpu, value: a, effect: NoSchedule}]}",
            ));
        })
        .unwrap();
    pod(&cluster, "plain", "");
    pod(
        &cluster,
        "tolerant",
        "tolerations: [{key: gpu, operator: Exists}],",
    );
    pod(&cluster, "preset", "nodeName: node1,");
    pod(&cluster, "foreign", "schedulerName: other,");
    cluster.settle();
    assert_eq!(
        why(&cluster, "plain"),
        "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: a}."
    );
    assert_eq!(node_of(&cluster, "tolerant").as_deref(), Some("node1"));
    assert!(pod::is_ready(&cluster.get("preset")));
    assert_eq!(node_of(&cluster, "foreign"), None);
}

#[test]
fn a_host_port_is_had_once_per_node() {
    let mut cluster = Cluster::new(1);
    let web = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: default, name: {name}}}, spec: \
             {{containers: [{{name: c, image: one, ports: [{{containerPort: 80, hostPort: 8080}}]}}]}}}}"
        )
    };
    cluster.apply::<Pod>(&web("first"));
    cluster.settle();
    cluster.apply::<Pod>(&web("second"));
    cluster.settle();
    assert_eq!(
        why(&cluster, "second"),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
    cluster.delete::<Pod>("first");
    cluster.settle();
    assert_eq!(node_of(&cluster, "second").as_deref(), Some("node1"));
}

#[test]
fn apart_and_together() {
    let mut cluster = Cluster::new(2);
    let affinity = |kind: &str, app: &str| {
        format!(
            "affinity: {{{kind}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: \
             kubernetes.io/hostname, labelSelector: {{matchLabels: {{app: {app}}}}}}}]}}}},"
        )
    };
    pod(&cluster, "cache", "");
    cluster.settle();
    pod(&cluster, "near", &affinity("podAffinity", "cache"));
    pod(&cluster, "far", &affinity("podAntiAffinity", "cache"));
    pod(&cluster, "lonely", &affinity("podAffinity", "nobody"));
    cluster.settle();
    assert_eq!(node_of(&cluster, "near"), node_of(&cluster, "cache"));
    assert_ne!(node_of(&cluster, "far"), node_of(&cluster, "cache"));
    assert!(why(&cluster, "lonely").contains("2 node(s) didn't match pod affinity rules"));
    pod(&cluster, "nobody", "");
    cluster.settle();
    assert_eq!(node_of(&cluster, "lonely"), node_of(&cluster, "nobody"));
}
