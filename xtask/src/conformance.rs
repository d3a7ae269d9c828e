//! `cargo xtask conformance`: prints the matrix of `tests/conformance`.

use anyhow::{Result, ensure};

use crate::run::{cargo, checked};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed to the suite; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    suite_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the suite makes namespaces: run it as root"
    );
    checked(cargo().args(["build", "--quiet"]))?;
    let suite = ["run", "--quiet", "--package", "ripstop-conformance", "--"];
    checked(cargo().args(suite).args(&args.suite_args))
}
