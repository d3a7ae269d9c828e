//! Makes the kernel match the plan: one trait, a module per engine.

pub mod ebpf;
mod engine;

pub use engine::{Datapath, Drift, EngineStatus, Error, NextHop, ResolvedRoute};
