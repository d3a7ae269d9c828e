//! What the watch tells.

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;
use ripstop_model::{
    ClusterNetworkPolicy, EndpointSlice, Namespace, NetworkPolicy, Node, NodeIdentity, ObjectKey,
    ObjectRef, Pod, Problem, Service, ServiceCidr,
};

/// Something that happened to objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectEvent<T, K: std::hash::Hash + Eq> {
    /// The object as it is now.
    Applied(T),
    Deleted(K),
    /// A list is complete. Objects that are not in it are gone, and nobody
    /// else says so: it is how deletions are learnt after a gap.
    Listed(HashSet<K>),
}

/// One event of the API, in the order of the API within each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Service(ObjectEvent<Service, ObjectKey>),
    Slice(ObjectEvent<EndpointSlice, ObjectKey>),
    Node(ObjectEvent<Node, String>),
    ServiceCidr(ObjectEvent<ServiceCidr, String>),
    /// Pods of the whole cluster.
    Pod(ObjectEvent<Pod, ObjectKey>),
    Namespace(ObjectEvent<Namespace, String>),
    NetworkPolicy(ObjectEvent<NetworkPolicy, ObjectKey>),
    ClusterNetworkPolicy(ObjectEvent<ClusterNetworkPolicy, String>),
    /// A node as policies name it; it goes with the node.
    NodeIdentity(NodeIdentity),
    /// When the change of pods happened that a slice was written for.
    EndpointsChanged(Timestamp),
    /// What of an object is ignored, as it is now: none ends what was said of
    /// it before. A deleted object has no problems.
    Problems(ObjectRef, Vec<Problem>),
    /// Every kind has been listed once: from here on what is not known is not
    /// there. Comes once.
    Synced,
}
