//! Published applications, as their authors wrote them, and how long the
//! control plane takes for them (printed; `--nocapture` shows it).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use ripstop_apiserver::{Client, Store, Stored, WatchEvent};
use serde_json::Value;

use super::Cluster;
use super::cluster::{set_state, template};
use crate::controllers::{ControllerConfig, pod};

/// The folder of published manifests, which is beside the project's.
fn manifests() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|folder| folder.join("shared/manifests"))
        .find(|folder| folder.is_dir())
}

/// Creates every object of the file; how many there were.
fn apply(client: &Client, file: &str) -> Option<usize> {
    let Some(folder) = manifests() else {
        println!("skipped: shared/manifests is not beside the project");
        return None;
    };
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let documents: Vec<Value> = documents.into_iter().filter(|one| !one.is_null()).collect();
    for document in &documents {
        match document["kind"].as_str().unwrap() {
            "Deployment" => create::<Deployment>(client, document),
            "Service" => create::<Service>(client, document),
            "ServiceAccount" => create::<ServiceAccount>(client, document),
            "NetworkPolicy" => create::<NetworkPolicy>(client, document),
            kind => panic!("{file} has a {kind}"),
        }
    }
    Some(documents.len())
}

fn create<K: Stored>(client: &Client, document: &Value) {
    let mut object: K = serde_json::from_value(document.clone()).unwrap();
    object
        .metadata_mut()
        .namespace
        .get_or_insert_with(|| "default".to_owned());
    client
        .create(&object)
        .unwrap_or_else(|status| panic!("{status}\n{document}"));
}

fn check(cluster: &Cluster, pods: usize) {
    let all = cluster.pods("");
    assert_eq!(all.len(), pods);
    for pod in &all {
        assert!(pod::is_ready(pod), "{:?}", pod.metadata.name);
    }
    for deployment in cluster.client.list::<Deployment>(Some("default")) {
        let status = deployment.status.unwrap();
        let wanted = deployment.spec.replicas.unwrap_or(1);
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ];
        assert_eq!(counts, [Some(wanted); 3], "{:?}", deployment.metadata.name);
    }
    for service in cluster.client.list::<Service>(Some("default")) {
        let name = service.metadata.name.as_deref().unwrap();
        if service.spec.as_ref().unwrap().selector.is_none() {
            continue;
        }
        let slices = cluster.slices(name);
        let ready = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .filter(|one| {
                one.conditions
                    .as_ref()
                    .is_some_and(|conditions| conditions.ready == Some(true))
            });
        let ready = ready.count();
        assert!(ready > 0, "{name}");
        let subsets = cluster.get::<Endpoints>(name).subsets.unwrap();
        assert_eq!(
            subsets[0].addresses.as_ref().unwrap().len(),
            ready,
            "{name}"
        );
    }
    let lost = |pod: &Pod| pod::node_name(pod).is_none();
    assert!(!all.iter().any(lost));
}

#[test]
fn online_boutique() {
    let mut cluster = Cluster::new(3);
    let Some(objects) = apply(&cluster.client, "online-boutique/kubernetes-manifests.yaml") else {
        return;
    };
    assert_eq!(objects, 35);
    apply(&cluster.client, "online-boutique/network-policies.yaml");
    cluster.settle();
    check(&cluster, 12);
    let per_node = |node: &str| {
        let here = |pod: &&Pod| pod::node_name(pod) == Some(node);
        cluster.pods("").iter().filter(here).count()
    };
    assert_eq!(["node1", "node2", "node3"].map(per_node), [4, 4, 4]);
}

#[test]
fn guestbook() {
    let mut cluster = Cluster::new(2);
    if apply(&cluster.client, "guestbook/guestbook-all-in-one.yaml").is_none() {
        return;
    }
    cluster.settle();
    check(&cluster, 6);
    // "a scaled-down replica gets no more connections"
    cluster.modify::<Deployment>("frontend", |frontend| frontend.spec.replicas = Some(1));
    cluster.settle();
    check(&cluster, 4);
}

/// Starts pods as soon as a node has them.
async fn run_pods(client: Client) {
    let mut watch = client.watch::<Pod>();
    let mut number = 0;
    loop {
        let WatchEvent::Applied(pod) = watch.next().await else {
            continue;
        };
        if pod::node_name(&pod).is_none() || pod::phase(&pod) != "Pending" {
            continue;
        }
        number += 1;
        let name = pod.metadata.name.as_deref().unwrap();
        let started = client.modify_status::<Pod>(pod.metadata.namespace.as_deref(), name, |pod| {
            let status = pod.status.get_or_insert_default();
            status.pod_ip = Some(format!("10.244.{}.{}", number / 250, number % 250 + 1));
            set_state(status, "Running", true, crate::clock::now());
        });
        started.unwrap();
    }
}

/// A running control plane, and a condition to be waited for.
struct Live {
    _store: Store,
    client: Client,
    start: Instant,
    tasks: tokio::task::JoinSet<()>,
}

impl Live {
    async fn new(nodes: usize) -> Self {
        let cluster = Cluster::new(nodes);
        let store = cluster.into_store();
        let client = store.client();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(super::super::run(
            client.clone(),
            ControllerConfig::default(),
        ));
        tasks.spawn(run_pods(client.clone()));
        // The controllers' own first steps (accounts, taints) are not measured.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Self {
            _store: store,
            client,
            start: Instant::now(),
            tasks,
        }
    }

    /// When everything is as wanted, counted from the start.
    async fn until<K: Stored>(&self, what: &str, is_done: impl Fn(&[K]) -> bool) -> Duration {
        let mut watch = self.client.watch::<K>();
        while !is_done(&self.client.list::<K>(Some("default"))) {
            watch.next().await;
        }
        let elapsed = self.start.elapsed();
        println!("{what}: {elapsed:?}");
        elapsed
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

fn ready_endpoints(slices: &[EndpointSlice]) -> usize {
    let all = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    all.filter(|one| {
        one.conditions
            .as_ref()
            .is_some_and(|c| c.ready == Some(true))
    })
    .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_control_plane_brings_an_application_up() {
    let mut live = Live::new(3).await;
    live.start = Instant::now();
    if apply(&live.client, "online-boutique/kubernetes-manifests.yaml").is_none() {
        return;
    }
    println!("applied: {:?}", live.start.elapsed());
    live.until::<Pod>("12 pods have nodes", |pods| {
        pods.iter()
            .filter(|pod| pod::node_name(pod).is_some())
            .count()
            == 12
    })
    .await;
    live.until::<EndpointSlice>("12 services have endpoints", |slices| {
        ready_endpoints(slices) >= 12
    })
    .await;
    live.until::<Deployment>("12 deployments are available", |all| {
        let available = |one: &&Deployment| {
            one.status
                .as_ref()
                .is_some_and(|status| status.available_replicas == Some(1))
        };
        all.iter().filter(available).count() == 12
    })
    .await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pods_on_twenty_nodes() {
    let mut live = Live::new(20).await;
    live.start = Instant::now();
    let set = format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{namespace: default, name: web}}, \
         spec: {{replicas: 200, selector: {{matchLabels: {{app: web}}}}, template: {}}}}}",
        template("web", "one")
    );
    live.client
        .create::<ReplicaSet>(&serde_saphyr::from_str(&set).unwrap())
        .unwrap();
    let service = "{apiVersion: v1, kind: Service, metadata: {namespace: default, name: web}, \
                   spec: {selector: {app: web}, clusterIP: None, ports: [{port: 80}]}}";
    live.client
        .create::<Service>(&serde_saphyr::from_str(service).unwrap())
        .unwrap();
    live.until::<Pod>("200 pods have nodes", |pods| {
        pods.iter()
            .filter(|pod| pod::node_name(pod).is_some())
            .count()
            == 200
    })
    .await;
    live.until::<EndpointSlice>("200 endpoints are ready", |slices| {
        ready_endpoints(slices) == 200
    })
    .await;
    live.until::<ReplicaSet>("the ReplicaSet says so", |sets| {
        sets[0]
            .status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == Some(200))
    })
    .await;
    // One more change, when all is quiet: readiness to slice.
    let pod = live.client.list::<Pod>(Some("default")).remove(0);
    let name = pod.metadata.name.unwrap();
    live.start = Instant::now();
    live.client
        .modify_status::<Pod>(Some("default"), &name, |pod| {
            let status = pod.status.get_or_insert_default();
            set_state(status, "Running", false, crate::clock::now());
        })
        .unwrap();
    live.until::<EndpointSlice>("a pod that is not ready any more is known", |slices| {
        ready_endpoints(slices) == 199
    })
    .await;
    live.end().await;
}
