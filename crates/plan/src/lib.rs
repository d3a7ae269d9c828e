//! What this node should do, computed from the model.
//!
//! Pure: no async, no clock, no syscalls. A change of one object gives the rows
//! that depend on it and no others; [`Tables`] is what they add up to.

mod backends;
mod claims;
mod endpoints;
mod names;
mod node_ranges;
mod planner;
pub mod policy;
mod ranges;
mod service;
mod tables;

pub use backends::{Backend, Backends};
pub use names::{Headless, Host, NamedPort, ServiceNames};
pub use node_ranges::{DivisionError, NodeRanges};
pub use planner::{PlanConfig, Planner, Update};
pub use tables::{
    Change, Frontend, FrontendKind, FrontendRow, HealthCheck, NodeRoute, Outside, Range, Tables,
};
