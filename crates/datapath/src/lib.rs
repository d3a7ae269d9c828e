//! Makes the kernel match the plan: one trait, a module per engine.

mod compare;
mod compare_policies;
pub mod ebpf;
mod engine;
mod grace;
mod lists;
mod maglev;
pub mod nftables;
mod ports;
mod regular;
mod state;

pub use compare::difference;
pub use compare_policies::policy_difference;
pub use engine::{
    Datapath, Deny, Drift, EngineStatus, Error, NextHop, Part, PolicySettings, ResolvedRoute,
};
pub use state::{BackendState, Connection, Denial, Denials, FrontendState, TranslatedFlow};
