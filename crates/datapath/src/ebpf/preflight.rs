//! What this kernel makes of the programs, without attaching any.

use std::time::{Duration, Instant};

use super::config::Limits;
use super::maps::Maps;
use super::programs::{ProgramStats, Programs};
use super::start::constants;
use crate::Error;

/// A kernel that takes all programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub programs: Vec<ProgramStats>,
    /// Of tables and programs.
    pub took: Duration,
}

/// Loads all programs over tables of their own, and lets both go.
///
/// # Errors
/// [`Error::Unsupported`] with what the kernel refuses, and why.
pub fn try_load() -> Result<Loaded, Error> {
    let started = Instant::now();
    let constants = constants()?;
    let maps = Maps::create(&Limits::default())?;
    let programs = Programs::load(&maps, &constants)?;
    let took = started.elapsed();
    let programs = programs.stats().map_err(|source| Error::Kernel {
        operation: "read the programs' statistics".into(),
        source,
    })?;
    Ok(Loaded { programs, took })
}
