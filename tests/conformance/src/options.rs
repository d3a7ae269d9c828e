//! What people type.

use clap::ValueEnum;

use crate::engine::{Engine, Family, Stack};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only this engine; may be repeated.
    #[arg(long, value_enum)]
    pub engine: Vec<Engine>,
    /// Only this family; may be repeated.
    #[arg(long, value_enum)]
    pub family: Vec<Family>,
    /// Only clusters with these families; may be repeated. Single-stack
    /// clusters run the scenarios that `--list` marks.
    #[arg(long, value_enum)]
    pub stack: Vec<Stack>,
    /// Only scenarios whose name contains this; may be repeated.
    #[arg(long)]
    pub scenario: Vec<String>,
    /// Print the scenarios and end.
    #[arg(long)]
    pub list: bool,
    /// How many scenarios run at the same time in a cluster.
    #[arg(long, default_value_t = 8)]
    pub parallel: usize,
    /// How long something that should become so is waited for, seconds.
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// The chosen ones, or all.
fn or_all<T: ValueEnum + Copy>(chosen: &[T]) -> Vec<T> {
    match chosen {
        [] => T::value_variants().to_vec(),
        some => some.to_vec(),
    }
}

impl Options {
    pub fn engines(&self) -> Vec<Engine> {
        or_all(&self.engine)
    }

    pub fn stacks(&self) -> Vec<Stack> {
        or_all(&self.stack)
    }

    pub fn families(&self) -> Vec<Family> {
        or_all(&self.family)
    }

    pub fn wants(&self, scenario: &str) -> bool {
        self.scenario.is_empty() || self.scenario.iter().any(|part| scenario.contains(part))
    }
}
