//! The kinds that policies are about, followed beside those of services.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use ripstop_model::{
    ClusterNetworkPolicy, Namespace, NetworkPolicy, ObjectKey, ObjectKind, ObjectRef, Pod,
};

use crate::convert::{self, Converted};
use crate::follow::follow;
use crate::kinds::Followed;
use crate::objects::{ClusterNetworkPolicyObject, PodObject};
use crate::{ApiHealth, Event, ObjectEvent};

/// As [`watch`](crate::watch), for pods, namespaces and policies: every node of
/// the cluster has to know every pod of it. `synced` is called once, when all
/// kinds have been listed.
pub async fn watch_policies(
    client: Client,
    health: Arc<ApiHealth>,
    sink: impl Fn(Event) + Send + Sync,
    synced: impl Fn() + Send + Sync,
) {
    let unlisted = AtomicUsize::new(4);
    let listed = || {
        if unlisted.fetch_sub(1, Ordering::Relaxed) == 1 {
            synced();
        }
    };
    tokio::join!(
        follow::<PodObject>(&client, &health, &sink, &listed),
        follow::<core::Namespace>(&client, &health, &sink, &listed),
        follow::<networking::NetworkPolicy>(&client, &health, &sink, &listed),
        follow::<ClusterNetworkPolicyObject>(&client, &health, &sink, &listed),
    );
}

impl Followed for PodObject {
    const KIND: ObjectKind = ObjectKind::Pod;
    type Model = Pod;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn reference(key: &ObjectKey) -> ObjectRef {
        ObjectRef::new(Self::KIND, key.clone())
    }
    fn model(&self) -> Converted<Pod> {
        convert::pod(self)
    }
    fn event(event: ObjectEvent<Pod, ObjectKey>) -> Event {
        Event::Pod(event)
    }
}

impl Followed for core::Namespace {
    const KIND: ObjectKind = ObjectKind::Namespace;
    type Model = Namespace;
    type Key = String;

    fn key(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }
    fn reference(key: &String) -> ObjectRef {
        ObjectRef::of_cluster(Self::KIND, key)
    }
    fn model(&self) -> Converted<Namespace> {
        convert::namespace(self)
    }
    fn event(event: ObjectEvent<Namespace, String>) -> Event {
        Event::Namespace(event)
    }
}

impl Followed for networking::NetworkPolicy {
    const KIND: ObjectKind = ObjectKind::NetworkPolicy;
    type Model = NetworkPolicy;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn reference(key: &ObjectKey) -> ObjectRef {
        ObjectRef::new(Self::KIND, key.clone())
    }
    fn model(&self) -> Converted<NetworkPolicy> {
        convert::network_policy(self)
    }
    fn event(event: ObjectEvent<NetworkPolicy, ObjectKey>) -> Event {
        Event::NetworkPolicy(event)
    }
    fn unreadable(key: &ObjectKey) -> Option<NetworkPolicy> {
        Some(convert::closed(key.clone()))
    }
}

impl Followed for ClusterNetworkPolicyObject {
    const KIND: ObjectKind = ObjectKind::ClusterNetworkPolicy;
    /// A custom resource that few clusters have.
    const OPTIONAL: bool = true;
    const IS_CUSTOM: bool = true;
    type Model = ClusterNetworkPolicy;
    type Key = String;

    fn key(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }
    fn reference(key: &String) -> ObjectRef {
        ObjectRef::of_cluster(Self::KIND, key)
    }
    fn model(&self) -> Converted<ClusterNetworkPolicy> {
        convert::cluster_network_policy(self)
    }
    fn event(event: ObjectEvent<ClusterNetworkPolicy, String>) -> Event {
        Event::ClusterNetworkPolicy(event)
    }
}
