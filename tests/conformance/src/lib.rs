//! Whether a cluster's network does what Kubernetes promises of Services.
//!
//! Scenarios by name ([`scenarios`]), each run on every path that applies, for
//! IPv4 and IPv6, under every engine; the result is a matrix in which each cell
//! is ok, failed or skipped for a reason that it names. The suite speaks to the
//! API as any client does and to the network from where clients are: programs
//! in pods, on nodes and outside the cluster that make connections as they are
//! told ([`client`]), and servers that say who they are and whom they see
//! ([`server`]). Nothing here knows how an engine works.

pub mod api;
pub mod client;
pub mod cluster;
pub mod engine;
pub mod expect;
pub mod matrix;
pub mod options;
pub mod path;
pub mod place;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod stage;
pub mod suite;
pub mod wire;
