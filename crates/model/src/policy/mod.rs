//! Network policies, and what they choose by: pods, namespaces and nodes of the
//! whole cluster.

mod cluster;
mod domains;
mod network;
mod peer;
mod subject;

pub use cluster::{Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, Tier};
pub use domains::DomainSet;
pub use network::NetworkPolicy;
pub use peer::{DomainPattern, NamespaceScope, Peer, PortMatch, PortSet, PortsOf, Rule};
pub use subject::{ContainerPort, Namespace, NodeIdentity, Pod};
