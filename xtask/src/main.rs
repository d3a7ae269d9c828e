//! Tasks of this repository that cargo alone does not do: `cargo xtask --help`.

mod bench;
mod run;
mod test;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Tasks of this repository")]
enum Task {
    /// Run all tests (as root: they make namespaces and load programs).
    Test(test::Args),
    /// Measure beside the peers (as root).
    Bench(bench::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
    }
}
