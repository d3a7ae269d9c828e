//! The objects that readiness depends on, kept up to date by watches.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Objects by namespace and name.
pub type Table<K> = BTreeMap<(String, String), K>;

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub nodes: Table<Node>,
    pub pods: Table<Pod>,
    pub services: Table<Service>,
    pub slices: Table<EndpointSlice>,
    pub deployments: Table<Deployment>,
    pub replica_sets: Table<ReplicaSet>,
    pub stateful_sets: Table<StatefulSet>,
    pub daemon_sets: Table<DaemonSet>,
    pub jobs: Table<Job>,
}

/// URLs of the collections, in the order of [`Cluster::put`]'s numbers.
pub(super) const COLLECTIONS: [&str; 9] = [
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
];

impl Cluster {
    /// Stores or removes an object of collection number `collection`.
    pub(crate) fn put(&mut self, collection: usize, object: Value, deleted: bool) {
        match collection {
            0 => put(&mut self.nodes, object, deleted),
            1 => put(&mut self.pods, object, deleted),
            2 => put(&mut self.services, object, deleted),
            3 => put(&mut self.slices, object, deleted),
            4 => put(&mut self.deployments, object, deleted),
            5 => put(&mut self.replica_sets, object, deleted),
            6 => put(&mut self.stateful_sets, object, deleted),
            7 => put(&mut self.daemon_sets, object, deleted),
            _ => put(&mut self.jobs, object, deleted),
        }
    }
}

fn put<K>(table: &mut Table<K>, object: Value, deleted: bool)
where
    K: Metadata<Ty = ObjectMeta> + DeserializeOwned,
{
    // What the API sends is what it has decoded with the same types.
    let Ok(object) = serde_json::from_value::<K>(object) else {
        return;
    };
    let metadata = object.metadata();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = (text(&metadata.namespace), text(&metadata.name));
    if deleted {
        table.remove(&key);
    } else {
        table.insert(key, object);
    }
}
