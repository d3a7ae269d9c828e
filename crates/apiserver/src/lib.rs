//! The embedded API server: the objects of one lab, served as Kubernetes
//! serves them.
//!
//! It owns the objects (one journal file), what is done to an object on its way
//! in (defaults, validation, allocation), the HTTP interface for kubectl and
//! kube-rs, and an in-process client for the lab's own controllers. It refuses
//! to know how a pod runs: logs and exec go through [`PodAccess`].
//!
//! The way of a write: `http` or [`client`] -> `registry` (one function per
//! verb) -> `patch` (for PATCH) -> `kinds` (prune, default, validate) ->
//! `alloc` (service addresses and ports) -> `storage` (journal, objects, event
//! log) -> watchers.

pub mod kinds;
pub mod patch;
pub mod status;

pub use status::{Cause, CauseReason, Reason, Status};
