//! Network policies: from objects to the rows that decide about packets.
//!
//! Policies become *sides*: what is in force on the ingress or egress of a pod,
//! one for all pods with equal rules. The other ends that their rules name become
//! *peers*, and each address has a *class*: the set of peers that it is one of.
//! For each pair of a side and a class there is one row.

mod active;
mod attribution;
mod cluster;
mod compile;
mod id;
mod in_force;
pub mod kernel;
mod part;
mod peers;
mod planner;
mod pool;
mod prefixes;
mod rows;
mod rules;
mod side;
mod subjects;

pub use attribution::{Attribution, Direction};
pub use cluster::Holder;
pub use id::{AttributionId, ClassId, PolicyId, PortsId};
pub use in_force::{InForce, RuleInForce};
pub use planner::PolicyPlanner;
pub use rows::{Cell, Outcome, PodPolicies, PolicyChange, PolicyTables, PortTable, RuleRow};
