//! A cluster without a network: store, controllers, and nodes that start and
//! stop pods as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Event, Node, Pod, PodCondition,
    PodIP, PodStatus,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ripstop_apiserver::{Client, ClusterConfig, Store, Stored};
use serde::de::DeserializeOwned;

use super::super::controllers;
use super::super::manager::Manager;
use super::super::{ControllerConfig, pod};

/// What the nodes do with pods; by the pods' names or prefixes of them.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    /// Run, but never become ready.
    pub(super) never_ready: BTreeSet<String>,
    /// Run to an end, well or not.
    pub(super) ends: BTreeMap<String, bool>,
    /// Take their time to stop.
    pub(super) lingers: bool,
}

pub(super) struct Cluster {
    store: Store,
    pub(super) client: Client,
    manager: Manager,
    pub(super) now: Timestamp,
    pub(super) behaviour: Behaviour,
    addresses: u16,
    /// Looked at after every single step of anyone.
    pub(super) invariant: Option<Invariant>,
}

/// Panics if something does not hold.
pub(super) type Invariant = Box<dyn Fn(&Client)>;

impl Cluster {
    pub(super) fn new(nodes: usize) -> Self {
        let api = ClusterConfig {
            service_cidrs: vec![
                "10.96.0.0/16".parse().unwrap(),
                "fd00:96::/112".parse().unwrap(),
            ],
            ..ClusterConfig::default()
        };
        let store = Store::open_with(None, api).unwrap();
        let client = store.client();
        let config = ControllerConfig {
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:244::/48".parse().unwrap(),
            ],
            lb_pools: vec![
                "172.30.255.0/30".parse().unwrap(),
                "fd00:30:ff::/112".parse().unwrap(),
            ],
            root_ca: Some("PEM".to_owned()),
            job_backoff: Duration::from_secs(10),
        };
        let manager = Manager::new(client.clone(), controllers(config));
        let cluster = Self {
            store,
            client,
            manager,
            now: crate::clock::now(),
            behaviour: Behaviour::default(),
            addresses: 0,
            invariant: None,
        };
        for index in 1..=nodes {
            cluster.add_node(&format!("node{index}"));
        }
        cluster
    }

    /// The objects, without the controllers.
    pub(super) fn into_store(self) -> Store {
        self.store
    }

    pub(super) fn add_node(&self, name: &str) {
        self.apply::<Node>(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}}}"
        ));
        self.client
            .modify_status::<Node>(None, name, |node| {
                node.status = Some(
                    serde_saphyr::from_str("{conditions: [{type: Ready, status: 'True'}]}")
                        .unwrap(),
                );
            })
            .unwrap();
    }

    /// Creates the object.
    pub(super) fn apply<K: Stored>(&self, yaml: &str) -> K {
        let object: K = serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        self.client
            .create(&object)
            .unwrap_or_else(|status| panic!("{status}\n{yaml}"))
    }

    pub(super) fn get<K: Stored>(&self, name: &str) -> K {
        let found = self.client.get(Some("default"), name);
        found.unwrap_or_else(|| panic!("no {} {name}", K::KIND))
    }

    pub(super) fn modify<K: Stored>(&self, name: &str, change: impl FnMut(&mut K)) {
        self.client.modify(Some("default"), name, change).unwrap();
    }

    pub(super) fn delete<K: Stored>(&self, name: &str) {
        self.client
            .delete::<K>(Some("default"), name, None)
            .unwrap();
    }

    /// Pods of the namespace `default` whose names begin so.
    pub(super) fn pods(&self, prefix: &str) -> Vec<Pod> {
        let mut pods = self.client.list::<Pod>(Some("default"));
        pods.retain(|pod| pod.metadata.name.as_ref().unwrap().starts_with(prefix));
        pods
    }

    pub(super) fn pod_names(&self, prefix: &str) -> Vec<String> {
        self.pods(prefix)
            .into_iter()
            .map(|pod| pod.metadata.name.unwrap())
            .collect()
    }

    pub(super) fn slices(&self, service: &str) -> Vec<EndpointSlice> {
        let mut slices = self.client.list::<EndpointSlice>(Some("default"));
        slices.retain(|slice| {
            slice.metadata.labels.as_ref().is_some_and(|labels| {
                labels.get("kubernetes.io/service-name").map(String::as_str) == Some(service)
            })
        });
        slices
    }

    /// (reason, message) of the events about an object, oldest first.
    pub(super) fn events(&self, object: &str) -> Vec<(String, String)> {
        let mut events = self.client.list::<Event>(None);
        events.retain(|event| event.involved_object.name.as_deref() == Some(object));
        events.sort_by_key(|event| event.metadata.name.clone());
        let pair = |event: Event| (event.reason.unwrap(), event.message.unwrap());
        events.into_iter().map(pair).collect()
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
        self.settle();
    }

    /// Lets everyone work until nobody has anything to do at this time.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let worked = self.manage();
            if !self.run_nodes() && !worked {
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    /// Lets the controllers work until they rest; the nodes do nothing.
    pub(super) fn manage(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..100_000 {
            if !self.manager.pass(self.now) {
                return worked;
            }
            worked = true;
            self.check();
        }
        panic!("the controllers do not come to rest");
    }

    fn check(&self) {
        if let Some(invariant) = &self.invariant {
            invariant(&self.client);
        }
    }

    /// What every node does next for one pod each; whether there was anything.
    pub(super) fn run_nodes(&mut self) -> bool {
        for pod in self.client.list::<Pod>(None) {
            if pod::node_name(&pod).is_some() && self.run_pod(&pod) {
                self.check();
                return true;
            }
        }
        false
    }

    fn run_pod(&mut self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref();
        let name = pod.metadata.name.as_deref().unwrap();
        if pod::is_terminating(pod) {
            if self.behaviour.lingers {
                return false;
            }
            self.client.delete::<Pod>(namespace, name, Some(0)).unwrap();
            return true;
        }
        if pod::is_terminal(pod) {
            return false;
        }
        let named = |prefix: &String| name.starts_with(prefix.as_str());
        let end = self
            .behaviour
            .ends
            .iter()
            .find(|(prefix, _)| named(prefix))
            .map(|(_, well)| *well);
        let ready = end.is_none() && !self.behaviour.never_ready.iter().any(named);
        let phase = match end {
            None => "Running",
            Some(true) => "Succeeded",
            Some(false) => "Failed",
        };
        if pod::phase(pod) == phase && pod::is_ready(pod) == ready {
            return false;
        }
        self.addresses += 1;
        let number = self.addresses;
        let now = self.now;
        self.client
            .modify_status::<Pod>(namespace, name, |pod| {
                let status = pod.status.get_or_insert_default();
                if status.pod_ips.is_none() {
                    let ips = [
                        format!("10.244.{}.{}", number / 250, number % 250 + 1),
                        format!("fd00:244::{number:x}"),
                    ];
                    status.pod_ip = Some(ips[0].clone());
                    status.pod_ips = Some(ips.map(|ip| PodIP { ip }).to_vec());
                }
                set_state(status, phase, ready, now);
            })
            .unwrap();
        true
    }
}

pub(super) fn set_state(status: &mut PodStatus, phase: &str, ready: bool, now: Timestamp) {
    status.phase = Some(phase.to_owned());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    if phase != "Running" {
        let terminated = ContainerStateTerminated {
            finished_at: Some(Time(now)),
            ..Default::default()
        };
        status.container_statuses = Some(vec![ContainerStatus {
            name: "c".to_owned(),
            state: Some(ContainerState {
                terminated: Some(terminated),
                ..Default::default()
            }),
            ..Default::default()
        }]);
    }
}

/// A value from YAML.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// A pod template's text: label `app: <app>`, one container of this image.
pub(super) fn template(app: &str, image: &str) -> String {
    format!(
        "{{metadata: {{labels: {{app: {app}}}}}, spec: {{containers: [{{name: c, image: {image}, \
         ports: [{{name: http, containerPort: 8080}}]}}]}}}}"
    )
}
