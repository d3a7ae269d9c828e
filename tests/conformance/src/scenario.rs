//! What a scenario is, and how it may end.

use anyhow::Result;

use crate::path::Path;
use crate::stage::Stage;

/// One promise, kept or not.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What is promised, in one sentence.
    pub promise: &'static str,
    pub paths: &'static [Path],
    /// Single-stack clusters are asked as well.
    pub single_stack: bool,
    /// It disturbs others: nothing else runs meanwhile.
    pub alone: bool,
    pub run: fn(&Stage<'_>) -> Result<()>,
}

impl Scenario {
    /// A scenario with ways of its own, for dual-stack clusters.
    pub const fn new(
        name: &'static str,
        promise: &'static str,
        run: fn(&Stage<'_>) -> Result<()>,
    ) -> Self {
        Self {
            name,
            promise,
            paths: &[Path::Own],
            single_stack: false,
            alone: false,
            run,
        }
    }

    pub const fn on(self, paths: &'static [Path]) -> Self {
        Self { paths, ..self }
    }

    pub const fn also_single_stack(self) -> Self {
        Self {
            single_stack: true,
            ..self
        }
    }

    pub const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }
}

/// The scenario cannot be tried here, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);
