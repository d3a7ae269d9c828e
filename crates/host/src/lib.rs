//! The node's own network: namespaces, links, addresses, routes, sysctls, and
//! which address belongs to which pod.
//!
//! Owns every netlink and namespace syscall outside the datapath engines.
//! Refuses policy: callers say what to make, this crate makes it or undoes it.

pub mod ipam;
pub mod netlink;
pub mod netns;
pub mod pod;
pub mod records;
pub mod routes;
pub mod sysctl;
pub mod uplink;
