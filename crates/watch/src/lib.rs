//! From the API server to the model.
//!
//! The only crate that knows a Kubernetes client. Objects are converted as they
//! arrive and then dropped: nothing is cached here, so an agent holds of each
//! object only what the network needs. Refuses to decide anything: it says what
//! is there, what went, and when a list was complete. Writes nothing but Events
//! about objects of which a part had to be ignored, that the node's network is
//! there, and, for the controller, its Lease and nodes' ranges.

mod client;
mod condition;
mod convert;
mod event;
mod follow;
mod health;
mod kinds;
mod lease;
mod objects;
mod policy;
mod ranges;
mod recorder;

pub use client::{ClientError, connect};
pub use condition::network_is_up;
pub use convert::{
    Converted, cluster_network_policy, namespace, network_policy, node, node_identity, pod,
    service, service_cidr, slice,
};
pub use event::{Event, ObjectEvent};
pub use follow::watch;
pub use health::{ApiHealth, ApiState};
pub use lease::Election;
pub use objects::{ClusterNetworkPolicyObject, PodObject, ServiceCidrObject, ServiceObject};
pub use policy::watch_policies;
pub use ranges::give_ranges;
pub use recorder::{Recorder, Reporter, recorder};
