//! StatefulSets.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;

use super::Cluster;
use super::cluster::template;
use crate::controllers::pod;

fn stateful_set(cluster: &Cluster, replicas: i32, more: &str) {
    cluster.apply::<StatefulSet>(&format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{namespace: default, name: db}}, \
         spec: {{replicas: {replicas}, serviceName: db, {more} selector: {{matchLabels: {{app: db}}}}, \
         template: {}}}}}",
        template("db", "one")
    ));
}

fn set_image(cluster: &Cluster, image: &str) {
    cluster.modify::<StatefulSet>("db", |set| {
        set.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    });
}

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: Pod| pod.spec.unwrap().containers[0].image.clone().unwrap();
    cluster.pods("db-").into_iter().map(image).collect()
}

#[test]
fn pods_come_one_by_one_and_go_in_reverse() {
    let mut cluster = Cluster::new(3);
    stateful_set(&cluster, 3, "");
    cluster.invariant = Some(Box::new(|client| {
        // All but the newest are ready.
        let pods = client.list::<Pod>(Some("default"));
        let ready: Vec<bool> = pods.iter().map(pod::is_ready).collect();
        assert!(ready.iter().rev().skip(1).all(|ready| *ready), "{ready:?}");
    }));
    cluster.settle();
    assert_eq!(cluster.pod_names("db-"), ["db-0", "db-1", "db-2"]);

    let pod: Pod = cluster.get("db-1");
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    let status = cluster.get::<StatefulSet>("db").status.unwrap();
    assert_eq!(
        Some(&labels["controller-revision-hash"]),
        status.current_revision.as_ref()
    );
    let spec = pod.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("db-1"));
    assert_eq!(spec.subdomain.as_deref(), Some("db"));
    assert_eq!((status.replicas, status.ready_replicas), (3, Some(3)));
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(3), Some(3))
    );
    let created = "create Pod db-0 in StatefulSet db successful".to_owned();
    assert_eq!(
        cluster.events("db")[0],
        ("SuccessfulCreate".to_owned(), created)
    );

    cluster.invariant = None;
    cluster.behaviour.lingers = true;
    cluster.modify::<StatefulSet>("db", |set| set.spec.replicas = Some(1));
    cluster.settle();
    let leaving: Vec<bool> = cluster
        .pods("db-")
        .iter()
        .map(pod::is_terminating)
        .collect();
    assert_eq!(leaving, [false, false, true]);
    cluster.behaviour.lingers = false;
    cluster.settle();
    assert_eq!(cluster.pod_names("db-"), ["db-0"]);
}

#[test]
fn an_unready_pod_holds_the_others_back() {
    let mut cluster = Cluster::new(3);
    cluster.behaviour.never_ready.insert("db-1".to_owned());
    stateful_set(&cluster, 3, "");
    cluster.settle();
    assert_eq!(cluster.pod_names("db-"), ["db-0", "db-1"]);
    cluster.behaviour.never_ready.clear();
    cluster.settle();
    assert_eq!(cluster.pod_names("db-"), ["db-0", "db-1", "db-2"]);
}

#[test]
fn parallel_pods_wait_for_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.behaviour.never_ready.insert("db-".to_owned());
    stateful_set(
        &cluster,
        3,
        "podManagementPolicy: Parallel, ordinals: {start: 5},",
    );
    cluster.settle();
    assert_eq!(cluster.pod_names("db-"), ["db-5", "db-6", "db-7"]);
    cluster.modify::<StatefulSet>("db", |set| set.spec.replicas = Some(0));
    cluster.settle();
    assert!(cluster.pod_names("db-").is_empty());
}

#[test]
fn an_update_goes_down_to_the_partition() {
    let mut cluster = Cluster::new(3);
    stateful_set(
        &cluster,
        4,
        "updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}},",
    );
    cluster.settle();
    cluster.invariant = Some(Box::new(|client| {
        let pods = client.list::<Pod>(Some("default"));
        let ready = pods
            .iter()
            .filter(|pod| pod::is_active(pod) && pod::is_ready(pod))
            .count();
        assert!(ready >= 3, "{ready} are ready");
    }));
    set_image(&cluster, "two");
    cluster.settle();
    assert_eq!(images(&cluster), ["one", "one", "two", "two"]);
    let status = cluster.get::<StatefulSet>("db").status.unwrap();
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(2), Some(2))
    );
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(
        cluster
            .client
            .list::<ControllerRevision>(Some("default"))
            .len(),
        2
    );

    // A pod below the partition comes back as it was.
    cluster.invariant = None;
    cluster.delete::<Pod>("db-0");
    cluster.settle();
    assert_eq!(images(&cluster), ["one", "one", "two", "two"]);

    cluster.modify::<StatefulSet>("db", |set| {
        set.spec
            .update_strategy
            .as_mut()
            .unwrap()
            .rolling_update
            .as_mut()
            .unwrap()
            .partition = Some(0);
    });
    cluster.settle();
    assert_eq!(images(&cluster), ["two"; 4]);
    let status = cluster.get::<StatefulSet>("db").status.unwrap();
    assert_eq!(status.current_revision, status.update_revision);

    // `kubectl rollout undo` writes the first template back: its revision returns.
    set_image(&cluster, "one");
    cluster.settle();
    assert_eq!(images(&cluster), ["one"; 4]);
    let revisions = cluster.client.list::<ControllerRevision>(Some("default"));
    let mut numbers: Vec<i64> = revisions.iter().filter_map(|one| one.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut cluster = Cluster::new(1);
    stateful_set(&cluster, 2, "updateStrategy: {type: OnDelete},");
    cluster.settle();
    set_image(&cluster, "two");
    cluster.settle();
    assert_eq!(images(&cluster), ["one", "one"]);
    cluster.delete::<Pod>("db-0");
    cluster.settle();
    assert_eq!(images(&cluster), ["two", "one"]);
}

#[test]
fn a_failed_pod_is_made_anew() {
    let mut cluster = Cluster::new(1);
    cluster.behaviour.ends.insert("db-0".to_owned(), false);
    stateful_set(&cluster, 1, "");
    cluster.manage();
    let first = cluster.get::<Pod>("db-0").metadata.uid;
    cluster.run_nodes();
    cluster.behaviour.ends.clear();
    cluster.settle();
    assert_ne!(cluster.get::<Pod>("db-0").metadata.uid, first);
    assert!(pod::is_ready(&cluster.get("db-0")));
    assert!(
        cluster
            .events("db")
            .iter()
            .any(|(reason, _)| reason == "RecreatingFailedPod")
    );
}

#[test]
fn claims_become_empty_directories_and_an_event_says_so() {
    let mut cluster = Cluster::new(1);
    stateful_set(
        &cluster,
        1,
        "volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
         resources: {requests: {storage: 1Gi}}}}],",
    );
    cluster.settle();
    let volumes = cluster.get::<Pod>("db-0").spec.unwrap().volumes.unwrap();
    assert!(
        volumes
            .iter()
            .any(|volume| volume.name == "data" && volume.empty_dir.is_some())
    );
    let ignored = |(reason, _): &&(String, String)| reason == "VolumeClaimsIgnored";
    assert_eq!(cluster.events("db").iter().filter(ignored).count(), 1);
}
