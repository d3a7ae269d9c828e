//! Deployments and ReplicaSets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ripstop_apiserver::Client;

use super::Cluster;
use super::cluster::template;
use crate::controllers::pod;

fn deployment(cluster: &Cluster, replicas: i32, strategy: &str) -> Deployment {
    cluster.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: default, name: web}}, \
         spec: {{replicas: {replicas}, progressDeadlineSeconds: 600, strategy: {strategy}, selector: {{matchLabels: {{app: web}}}}, \
         template: {}}}}}",
        template("web", "one")
    ))
}

fn set_image(cluster: &Cluster, image: &str) {
    cluster.modify::<Deployment>("web", |web| {
        web.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    });
}

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: Pod| pod.spec.unwrap().containers[0].image.clone().unwrap();
    let mut images: Vec<String> = cluster.pods("web-").into_iter().map(image).collect();
    images.sort();
    images
}

fn condition(deployment: &Deployment, kind: &str) -> (String, String) {
    let conditions = deployment
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap();
    let found = conditions
        .iter()
        .find(|one| one.type_.as_deref() == Some(kind))
        .unwrap();
    (found.status.clone().unwrap(), found.reason.clone().unwrap())
}

fn says(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_deployment_becomes_pods_and_says_so() {
    let mut cluster = Cluster::new(3);
    deployment(&cluster, 3, "{}");
    cluster.settle();

    let web: Deployment = cluster.get("web");
    let status = web.status.as_ref().unwrap();
    assert_eq!(status.replicas, Some(3));
    assert_eq!(status.updated_replicas, Some(3));
    assert_eq!(status.ready_replicas, Some(3));
    assert_eq!(status.available_replicas, Some(3));
    assert_eq!(status.unavailable_replicas, None);
    assert_eq!(status.observed_generation, web.metadata.generation);
    assert_eq!(
        condition(&web, "Available"),
        says("True", "MinimumReplicasAvailable")
    );
    assert_eq!(
        condition(&web, "Progressing"),
        says("True", "NewReplicaSetAvailable")
    );
    let annotations = web.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");

    let sets = cluster.client.list::<ReplicaSet>(Some("default"));
    let set = &sets[0];
    assert_eq!(sets.len(), 1);
    let hash = &set.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    let name = set.metadata.name.as_ref().unwrap();
    assert_eq!(*name, format!("web-{hash}"));
    for pod in cluster.pods("web-") {
        assert_eq!(
            &pod.metadata.labels.as_ref().unwrap()["pod-template-hash"],
            hash
        );
        assert!(
            pod.metadata
                .name
                .as_ref()
                .unwrap()
                .starts_with(&format!("{name}-"))
        );
    }
    let scaled = format!("Scaled up replica set {name} from 0 to 3");
    assert_eq!(
        cluster.events("web"),
        [("ScalingReplicaSet".to_owned(), scaled)]
    );
    let created = cluster.events(name);
    assert_eq!(created.len(), 3);
    for ((reason, message), pod) in created.iter().zip(cluster.pods("web-")) {
        assert_eq!(reason, "SuccessfulCreate");
        assert!(
            message.starts_with("Created pod: web-"),
            "{message} {:?}",
            pod.metadata.name
        );
    }
}

/// (available, existing and not yet leaving)
fn sizes(client: &Client) -> (usize, usize) {
    let pods = client.list::<Pod>(Some("default"));
    let active = || pods.iter().filter(|pod| pod::is_active(pod));
    (
        active().filter(|pod| pod::is_ready(pod)).count(),
        active().count(),
    )
}

#[test]
fn a_rollout_keeps_within_its_bounds() {
    for (surge, unavailable, least, most) in [
        ("25%", "25%", 8, 13),
        ("1", "0", 10, 11),
        ("0", "1", 9, 10),
        ("100%", "0", 10, 20),
    ] {
        let number = |text: &str| match text.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String(text.to_owned()),
        };
        let mut cluster = Cluster::new(3);
        deployment(&cluster, 10, "{}");
        cluster.modify::<Deployment>("web", |web| {
            let strategy = web.spec.strategy.get_or_insert_default();
            strategy.type_ = Some("RollingUpdate".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_surge = Some(number(surge));
            rolling.max_unavailable = Some(number(unavailable));
        });
        cluster.settle();
        cluster.invariant = Some(Box::new(move |client| {
            let (available, existing) = sizes(client);
            assert!(
                available >= least,
                "{available} of at least {least} are available"
            );
            assert!(existing <= most, "{existing} of at most {most} exist");
        }));
        set_image(&cluster, "two");
        cluster.settle();
        assert_eq!(images(&cluster), ["two"; 10]);
        let status = cluster.get::<Deployment>("web").status.unwrap();
        assert_eq!(
            (status.replicas, status.updated_replicas),
            (Some(10), Some(10))
        );
    }
}

#[test]
fn a_rollout_that_does_not_work_stops_and_is_undone() {
    let mut cluster = Cluster::new(2);
    deployment(&cluster, 4, "{}");
    cluster.settle();
    let first = cluster.client.list::<ReplicaSet>(Some("default"))[0]
        .metadata
        .name
        .clone()
        .unwrap();

    let old = cluster.pod_names("web-");
    set_image(&cluster, "broken");
    cluster.behaviour.never_ready.insert("web-".to_owned());
    cluster.behaviour.never_ready.clear();
    cluster.manage();
    let new: Vec<String> = cluster
        .pod_names("web-")
        .into_iter()
        .filter(|name| !old.contains(name))
        .collect();
    // Surge of one, one unavailable: two new pods, three old ones left.
    cluster
        .behaviour
        .never_ready
        .extend(new.iter().map(|name| name[..14].to_owned()));
    cluster.settle();
    assert_eq!(sizes(&cluster.client).0, 3);

    cluster.advance(601);
    let web: Deployment = cluster.get("web");
    assert_eq!(
        condition(&web, "Progressing"),
        says("False", "ProgressDeadlineExceeded")
    );
    assert_eq!(
        condition(&web, "Available"),
        says("True", "MinimumReplicasAvailable")
    );

    // `kubectl rollout undo` writes the old template back.
    set_image(&cluster, "one");
    cluster.settle();
    assert_eq!(images(&cluster), ["one"; 4]);
    let set: ReplicaSet = cluster.get(&first);
    let annotations = set.metadata.annotations.unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(
        annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
    assert_eq!(cluster.client.list::<ReplicaSet>(Some("default")).len(), 2);
}

#[test]
fn recreate_ends_all_old_pods_first() {
    let mut cluster = Cluster::new(2);
    deployment(&cluster, 3, "{type: Recreate}");
    cluster.settle();
    cluster.invariant = Some(Box::new(|client| {
        let mut images: Vec<String> = client
            .list::<Pod>(Some("default"))
            .into_iter()
            .map(|pod| pod.spec.unwrap().containers[0].image.clone().unwrap())
            .collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?}");
    }));
    set_image(&cluster, "two");
    cluster.settle();
    assert_eq!(images(&cluster), ["two"; 3]);
}

#[test]
fn scaling_down_takes_unready_pods_first() {
    let mut cluster = Cluster::new(2);
    cluster.behaviour.never_ready.insert("web-".to_owned());
    deployment(&cluster, 2, "{}");
    cluster.settle();
    let unready = cluster.pod_names("web-");
    cluster.behaviour.never_ready.clear();
    cluster
        .behaviour
        .never_ready
        .extend(unready.iter().cloned());
    cluster.modify::<Deployment>("web", |web| web.spec.replicas = Some(5));
    cluster.settle();
    assert_eq!(sizes(&cluster.client), (3, 5));
    cluster.modify::<Deployment>("web", |web| web.spec.replicas = Some(3));
    cluster.settle();
    assert!(
        !cluster
            .pod_names("web-")
            .iter()
            .any(|name| unready.contains(name))
    );
    cluster.modify::<Deployment>("web", |web| web.spec.replicas = Some(0));
    cluster.settle();
    assert_eq!(sizes(&cluster.client), (0, 0));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut cluster = Cluster::new(2);
    deployment(&cluster, 2, "{}");
    cluster.settle();
    cluster.modify::<Deployment>("web", |web| web.spec.paused = Some(true));
    set_image(&cluster, "two");
    cluster.modify::<Deployment>("web", |web| web.spec.replicas = Some(4));
    cluster.settle();
    assert_eq!(images(&cluster), ["one"; 4]);
    assert_eq!(
        condition(&cluster.get("web"), "Progressing"),
        says("Unknown", "DeploymentPaused")
    );
    cluster.modify::<Deployment>("web", |web| web.spec.paused = None);
    cluster.settle();
    assert_eq!(images(&cluster), ["two"; 4]);
}

#[test]
fn old_replica_sets_are_kept_up_to_the_limit() {
    let mut cluster = Cluster::new(1);
    deployment(&cluster, 1, "{}");
    cluster.modify::<Deployment>("web", |web| web.spec.revision_history_limit = Some(2));
    for image in ["one", "two", "three", "four", "five"] {
        set_image(&cluster, image);
        cluster.settle();
    }
    let mut sets = cluster.client.list::<ReplicaSet>(Some("default"));
    let revision = |set: &ReplicaSet| {
        set.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone()
    };
    sets.sort_by_key(revision);
    let revisions: Vec<String> = sets.iter().map(revision).collect();
    assert_eq!(revisions, ["3", "4", "5"]);
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut cluster = Cluster::new(1);
    deployment(&cluster, 1, "{}");
    cluster.modify::<Deployment>("web", |web| web.spec.min_ready_seconds = Some(30));
    cluster.settle();
    let available = |cluster: &Cluster| {
        cluster
            .get::<Deployment>("web")
            .status
            .unwrap()
            .available_replicas
            .unwrap_or(0)
    };
    assert_eq!(available(&cluster), 0);
    cluster.advance(31);
    assert_eq!(available(&cluster), 1);
}

#[test]
fn a_replica_set_adopts_and_releases() {
    let mut cluster = Cluster::new(1);
    let bare: Pod = cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: bare, labels: {app: web}}, \
         spec: {containers: [{name: c, image: one}]}}",
    );
    cluster.apply::<ReplicaSet>(&format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{namespace: default, name: web}}, \
         spec: {{replicas: 2, selector: {{matchLabels: {{app: web}}}}, template: {}}}}}",
        template("web", "one")
    ));
    cluster.settle();
    assert_eq!(cluster.pods("").len(), 2, "the one that was there counts");
    assert_eq!(cluster.get::<Pod>("bare").metadata.uid, bare.metadata.uid);

    cluster.modify::<Pod>("bare", |pod| {
        pod.metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("app".to_owned(), "debug".to_owned());
    });
    cluster.settle();
    assert_eq!(cluster.pods("").len(), 3, "a released pod is replaced");
    let owners = cluster
        .get::<Pod>("bare")
        .metadata
        .owner_references
        .unwrap_or_default();
    assert!(owners.is_empty(), "{owners:?}");
}
