//! DaemonSets.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::Cluster;
use super::cluster::template;
use crate::controllers::pod;

fn daemon_set(cluster: &Cluster, more: &str) {
    cluster.apply::<DaemonSet>(&format!(
        "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{namespace: default, name: agent}}, \
         spec: {{{more} selector: {{matchLabels: {{app: agent}}}}, template: {}}}}}",
        template("agent", "one")
    ));
}

fn nodes(cluster: &Cluster) -> Vec<String> {
    let node = |pod: &Pod| pod::node_name(pod).unwrap_or("-").to_owned();
    let mut nodes: Vec<String> = cluster.pods("agent-").iter().map(node).collect();
    nodes.sort();
    nodes
}

fn modify_node(cluster: &Cluster, name: &str, change: impl FnMut(&mut Node)) {
    cluster.client.modify::<Node>(None, name, change).unwrap();
}

#[test]
fn every_node_has_one_also_those_that_come_later() {
    let mut cluster = Cluster::new(2);
    daemon_set(&cluster, "");
    cluster.settle();
    assert_eq!(nodes(&cluster), ["node1", "node2"]);
    cluster.add_node("node3");
    cluster.settle();
    assert_eq!(nodes(&cluster), ["node1", "node2", "node3"]);
    let status = cluster.get::<DaemonSet>("agent").status.unwrap();
    assert_eq!(
        (status.desired_number_scheduled, status.number_ready),
        (3, 3)
    );
    assert_eq!(status.updated_number_scheduled, Some(3));

    cluster.client.delete::<Node>(None, "node2", None).unwrap();
    cluster.settle();
    assert_eq!(nodes(&cluster), ["node1", "node3"]);
}

#[test]
fn taints_and_cordons_decide_where() {
    let mut cluster = Cluster::new(3);
    let taint = |effect: &str| Taint {
        key: "dedicated".to_owned(),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    let add = |node: &mut Node, effect: &str| {
        node.spec
            .get_or_insert_default()
            .taints
            .get_or_insert_default()
            .push(taint(effect));
    };
    modify_node(&cluster, "node1", |node| add(node, "NoSchedule"));
    modify_node(&cluster, "node2", |node| {
        node.spec.get_or_insert_default().unschedulable = Some(true);
    });
    daemon_set(&cluster, "");
    cluster.settle();
    assert_eq!(
        nodes(&cluster),
        ["node2", "node3"],
        "a cordon does not keep daemons away"
    );

    modify_node(&cluster, "node3", |node| add(node, "NoSchedule"));
    cluster.settle();
    assert_eq!(nodes(&cluster), ["node2", "node3"], "who is there may stay");
    assert_eq!(
        cluster
            .get::<DaemonSet>("agent")
            .status
            .unwrap()
            .number_misscheduled,
        1
    );
    modify_node(&cluster, "node3", |node| add(node, "NoExecute"));
    cluster.settle();
    assert_eq!(nodes(&cluster), ["node2"], "unless the taint evicts");
}

fn roll(strategy: &str, least: usize, most: usize) {
    let mut cluster = Cluster::new(4);
    daemon_set(&cluster, strategy);
    cluster.settle();
    cluster.invariant = Some(Box::new(move |client| {
        let pods = client.list::<Pod>(Some("default"));
        let active = || pods.iter().filter(|pod| pod::is_active(pod));
        let up = active().filter(|pod| pod::is_ready(pod)).count();
        assert!(
            up >= least && active().count() <= most,
            "{up} up of {}",
            active().count()
        );
    }));
    cluster.modify::<DaemonSet>("agent", |set| {
        set.spec.template.spec.as_mut().unwrap().containers[0].image = Some("two".to_owned());
    });
    cluster.settle();
    let old = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() != Some("two");
    assert!(!cluster.pods("agent-").iter().any(old));
    assert_eq!(nodes(&cluster).len(), 4);
}

#[test]
fn updates_node_by_node() {
    roll("", 3, 4);
    roll(
        "updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 50%}},",
        2,
        4,
    );
    roll(
        "updateStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}},",
        4,
        5,
    );
}
