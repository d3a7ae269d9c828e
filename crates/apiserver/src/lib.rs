//! The embedded API server: the objects of one lab, served as Kubernetes
//! serves them.
//!
//! It owns the objects (one journal file), what is done to an object on its way
//! in (defaults, validation, allocation), the HTTP interface for kubectl and
//! kube-rs, and an in-process client for the lab's own controllers. It refuses
//! to know how a pod runs: logs and exec go through [`PodAccess`].
//!
//! The way of a write: `server` or [`client`] -> `registry` (one function per
//! verb) -> `patch` (for PATCH) -> `kinds` (prune, default, validate) ->
//! `alloc` (service addresses and ports) -> `storage` (journal, objects, event
//! log) -> watchers.

mod alloc;
mod bootstrap;
pub mod client;
mod config;
mod crd;
pub mod kinds;
pub mod patch;
pub mod pki;
pub mod pods;
mod registry;
mod selector;
mod server;
pub mod status;
mod storage;
mod table;

pub use client::{Client, Store, Stored, Watch, WatchEvent};
pub use config::ClusterConfig;
pub use pods::PodAccess;
pub use registry::{DeleteOptions, Propagation};
pub use server::serve;
pub use status::{Cause, CauseReason, Reason, Status};
pub use storage::OpenError;
