//! The node's own network: links, addresses, routes, sysctls, and
//! which address belongs to which pod.
//!
//! Owns what a node has besides the datapath engines' tables.
//! Refuses policy: callers say what to make, this crate makes it or undoes it.

pub mod backlog;
pub mod handover;
pub mod ipam;
pub mod memory;
pub mod ping;
pub mod pod;
pub mod privileges;
pub mod records;
pub mod routes;
pub mod takeover;
pub mod uplink;

pub use ripstop_netlink::sysctl;
