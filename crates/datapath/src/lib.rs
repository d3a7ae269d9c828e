//! Makes the kernel match the plan: one trait, a module per engine.

mod compare;
pub mod ebpf;
mod engine;
pub mod nftables;
mod state;

pub use compare::difference;
pub use engine::{Datapath, Drift, EngineStatus, Error, NextHop, ResolvedRoute};
pub use state::{BackendState, FrontendState, TranslatedFlow};
