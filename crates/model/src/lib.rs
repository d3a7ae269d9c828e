//! What Kubernetes objects mean to a network, as plain types.
//!
//! Owns the vocabulary that every other crate shares: services, endpoint
//! slices, nodes and the pods of this node. Refuses I/O, Kubernetes client
//! types and anything about how a packet is forwarded.

mod node;
mod pod;
mod service;

pub use node::Node;
pub use pod::{HostPort, LocalPod, Mac};
pub use service::{
    EndpointSlice, EndpointState, ObjectKey, Protocol, Service, ServiceKind, ServicePort,
    SliceEndpoint, SlicePort, TrafficPolicy,
};
