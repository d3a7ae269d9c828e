//! What Kubernetes objects mean to a network, as plain types.
//!
//! Owns the vocabulary that every other crate shares: services, endpoint
//! slices, nodes and the pods of this node. Refuses I/O, Kubernetes client
//! types and anything about how a packet is forwarded.

mod labels;
mod node;
mod pod;
mod policy;
mod problem;
mod service;
mod service_cidr;

pub use labels::{LabelMatch, LabelSelector, Labels, Requirement, StringPool};
pub use node::Node;
pub use pod::{HostPort, LocalPod, Mac};
pub use policy::{
    Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, ContainerPort, DomainPattern,
    DomainSet, Namespace, NamespaceScope, NetworkPolicy, NodeIdentity, Peer, Pod, PortMatch,
    PortSet, PortsOf, Rule, Tier,
};
pub use problem::{ObjectKind, ObjectRef, Problem, Reason};
pub use service::{
    EndpointSlice, EndpointState, ObjectKey, Protocol, Service, ServiceKind, ServicePort,
    SliceEndpoint, SlicePort, TrafficPolicy,
};
pub use service_cidr::ServiceCidr;
