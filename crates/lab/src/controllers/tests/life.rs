//! Owners, namespaces, nodes: what goes with what.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use ripstop_apiserver::{DeleteOptions, Propagation};

use super::Cluster;
use super::cluster::template;

fn deployment(cluster: &Cluster) {
    cluster.apply::<Deployment>(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: default, name: web}}, \
         spec: {{replicas: 2, selector: {{matchLabels: {{app: web}}}}, template: {}}}}}",
        template("web", "one")
    ));
}

fn delete(cluster: &Cluster, propagation: Propagation) {
    let options = DeleteOptions {
        propagation,
        ..DeleteOptions::default()
    };
    cluster
        .client
        .delete_with::<Deployment>(Some("default"), "web", &options)
        .unwrap();
}

fn there(cluster: &Cluster) -> (usize, usize, usize) {
    (
        cluster.client.list::<Deployment>(Some("default")).len(),
        cluster.client.list::<ReplicaSet>(Some("default")).len(),
        cluster.pods("").len(),
    )
}

#[test]
fn what_is_owned_goes_after_its_owner() {
    let mut cluster = Cluster::new(1);
    deployment(&cluster);
    cluster.settle();
    assert_eq!(there(&cluster), (1, 1, 2));
    delete(&cluster, Propagation::Background);
    assert_eq!(there(&cluster), (0, 1, 2));
    cluster.settle();
    assert_eq!(there(&cluster), (0, 0, 0));
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let mut cluster = Cluster::new(1);
    deployment(&cluster);
    cluster.settle();
    cluster.behaviour.lingers = true;
    delete(&cluster, Propagation::Foreground);
    cluster.settle();
    assert_eq!(
        there(&cluster),
        (1, 1, 2),
        "pods that take their time hold everyone up"
    );
    cluster.behaviour.lingers = false;
    cluster.settle();
    assert_eq!(there(&cluster), (0, 0, 0));
}

#[test]
fn orphans_stay_and_can_be_adopted() {
    let mut cluster = Cluster::new(1);
    deployment(&cluster);
    cluster.settle();
    let before = cluster.pod_names("");
    delete(&cluster, Propagation::Orphan);
    cluster.settle();
    assert_eq!(there(&cluster), (0, 1, 2));
    deployment(&cluster);
    cluster.settle();
    assert_eq!(there(&cluster), (1, 1, 2));
    assert_eq!(cluster.pod_names(""), before);
}

#[test]
fn one_of_two_owners_is_enough() {
    let mut cluster = Cluster::new(1);
    let owner = |name: &str| {
        cluster.apply::<ConfigMap>(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{namespace: default, name: {name}}}}}"
        ))
    };
    let owners: Vec<String> = ["a", "b"]
        .map(|name| {
            let uid = owner(name).metadata.uid.unwrap();
            format!("{{apiVersion: v1, kind: ConfigMap, name: {name}, uid: {uid}}}")
        })
        .to_vec();
    cluster.apply::<ConfigMap>(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{namespace: default, name: child, \
         ownerReferences: [{}]}}}}",
        owners.join(", ")
    ));
    cluster.settle();
    cluster.delete::<ConfigMap>("a");
    cluster.settle();
    let left = cluster
        .get::<ConfigMap>("child")
        .metadata
        .owner_references
        .unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].name, "b");
    cluster.delete::<ConfigMap>("b");
    cluster.settle();
    assert!(
        cluster
            .client
            .get::<ConfigMap>(Some("default"), "child")
            .is_none()
    );
}

#[test]
fn a_child_of_nobody_is_deleted() {
    let mut cluster = Cluster::new(1);
    cluster.apply::<ConfigMap>(
        "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: default, name: child, \
         ownerReferences: [{apiVersion: v1, kind: Pod, name: gone, uid: 0-0}]}}",
    );
    cluster.apply::<ConfigMap>(
        "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: default, name: unknown, \
         ownerReferences: [{apiVersion: example.com/v1, kind: Thing, name: gone, uid: 0-1}]}}",
    );
    cluster.settle();
    assert!(
        cluster
            .client
            .get::<ConfigMap>(Some("default"), "child")
            .is_none()
    );
    assert!(
        cluster
            .client
            .get::<ConfigMap>(Some("default"), "unknown")
            .is_some()
    );
}

#[test]
fn a_namespace_has_an_account_and_the_authority() {
    let mut cluster = Cluster::new(0);
    cluster.apply::<Namespace>("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    cluster.settle();
    let account = |cluster: &Cluster| {
        cluster
            .client
            .get::<ServiceAccount>(Some("shop"), "default")
    };
    assert!(account(&cluster).is_some());
    let authority: ConfigMap = cluster
        .client
        .get(Some("shop"), "kube-root-ca.crt")
        .unwrap();
    assert_eq!(authority.data.unwrap()["ca.crt"], "PEM");
    cluster
        .client
        .delete::<ServiceAccount>(Some("shop"), "default", None)
        .unwrap();
    cluster.settle();
    assert!(account(&cluster).is_some(), "it comes back");
}

#[test]
fn pods_of_a_node_that_went_go_too() {
    let mut cluster = Cluster::new(2);
    deployment(&cluster);
    cluster.settle();
    cluster.behaviour.lingers = true;
    cluster.client.delete::<Node>(None, "node1", None).unwrap();
    cluster.settle();
    let node = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.clone().unwrap();
    let nodes: Vec<String> = cluster.pods("").iter().map(node).collect();
    assert_eq!(nodes, ["node2", "node2"]);
}
